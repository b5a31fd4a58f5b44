"""The API's contract: the OpenAPI document as emitted, and how much of OpenAI's API it covers."""

from gateway.contract.document import openapi_document
from gateway.contract.files import contract_files

__all__ = ["contract_files", "openapi_document"]
