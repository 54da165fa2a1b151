"""`python -m worker.engine.compiling`: compiles what is compiled and keeps it, so that no start has to wait.

What is kept belongs to this processor and to these sources; anywhere else the first start does it.
"""

import multiprocessing

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from worker.engine import alignment, vad
from worker.engine.decoders import cannot_compile


def main() -> None:
    # Librosa's path search takes half as long as all of ours; a second process has another core.
    search = multiprocessing.get_context("spawn").Process(target=alignment.warm_up)
    search.start()
    _compile_ours()
    search.join()


def _compile_ours() -> None:
    reason = cannot_compile()
    if reason:
        print(f"Not compiled: {reason}.")
        return
    vad.warm_up()
    config = WhisperConfig(
        vocab_size=64,
        d_model=64,
        encoder_layers=1,
        encoder_attention_heads=1,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=1,
        decoder_ffn_dim=64,
        pad_token_id=0,
    )
    from worker.engine.compiled_decoder import CompiledDecoder  # noqa: PLC0415

    model = WhisperForConditionalGeneration(config).eval()
    with torch.inference_mode():
        for kept in (torch.float32, torch.float16):
            CompiledDecoder(model, 1, kept).read(0, np.zeros(2, np.int64).tolist())


if __name__ == "__main__":
    main()
