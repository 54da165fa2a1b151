"""`python -I worker/engine/decoder REQUEST`: opens one file with one demuxer and writes its sound to standard
output. `audio.py` starts it and reads what it writes.

Run by path, so that it is our code that runs, wherever it was started; of ours it imports this folder only.
"""

import json
import os
import sys

sys.path[0] = os.path.abspath(f"{__file__}/../../../..")

from worker.engine.decoder import sandbox  # noqa: E402
from worker.engine.decoder.protocol import Refusal, Request, send_failure  # noqa: E402


def main() -> None:
    request = Request(**json.loads(sys.argv[1]))
    sandbox.die_with(request.parent_pid)
    # The folder we stand in was made for us. Once it is gone no file can be found or made in it, and none
    # is left over should the whole worker be killed.
    os.rmdir(os.getcwd())
    sandbox.set_bounds(request.memory_bytes, request.cpu_s)
    try:
        # Not before the bounds are set, and all of it before the files of this machine go out of sight.
        from worker.engine.decoder.decode import decode  # noqa: PLC0415

        guards = sandbox.seal(request.parent_pid)
        decode(request, guards)
    except MemoryError:
        send_failure(Refusal("out_of_memory", "Decoding the file takes more memory than it may have."))
    except ImportError as error:
        # The dynamic loader says so when libav itself does not fit into the address space.
        if "failed to map" not in str(error) and "allocate memory" not in str(error):
            raise
        send_failure(Refusal("out_of_memory", "The decoder does not fit into the memory it may have."))
    except Refusal as refusal:
        send_failure(refusal)


if __name__ == "__main__":
    main()
