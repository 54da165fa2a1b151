"""`python -IS deploy/healthcheck.py PORT PATH`: exit code 0 when a GET on this machine is answered with 200.

Run every few seconds beside the service, so it loads the standard library's sockets and nothing else.
"""

import socket
import sys

_ANSWER_S = 4.0
"""The API takes up to 2.3 s to find out that Redis stands still."""


def main() -> int:
    port, path = sys.argv[1:]
    return 0 if is_ok(int(port), path) else 1


def is_ok(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_S) as connection:
            connection.settimeout(_ANSWER_S)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                return answer.readline().split()[1:2] == [b"200"]
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
