"""What tests share: a vLLM that misbehaves on purpose, recorded answers, a gateway process."""
