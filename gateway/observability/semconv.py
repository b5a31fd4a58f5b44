"""Every telemetry name that we emit, in one place.

From OpenTelemetry's semantic conventions for HTTP (stable) and for generative AI (published state,
1.41). The latter still move; when they do, this is the file that changes.
"""

from __future__ import annotations

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
HTTP_REQUEST_ID = "http.response.header.x-request-id"
HTTP_CLIENT_REQUEST_ID = "http.request.header.x-client-request-id"
HTTP_RESEND_COUNT = "http.request.resend_count"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
ENDUSER_ID = "enduser.id"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
OUTPUT_TYPE = "gen_ai.output.type"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats"
EMBEDDINGS_DIMENSIONS = "gen_ai.embeddings.dimension.count"
CONVERSATION_ID = "gen_ai.conversation.id"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
DATA_SOURCE_ID = "gen_ai.data_source.id"
RETRIEVAL_QUERY = "gen_ai.retrieval.query.text"
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"
DB_SYSTEM = "db.system.name"
DB_OPERATION = "db.operation.name"
DB_ROWS = "db.response.returned_rows"
CONTENT_EVENT = "gen_ai.client.inference.operation.details"
OPENAI_API_TYPE = "openai.api.type"
OPENAI_FINGERPRINT = "openai.response.system_fingerprint"
MCP_METHOD = "mcp.method.name"
MCP_SESSION_ID = "mcp.session.id"
MCP_PROTOCOL_VERSION = "mcp.protocol.version"
NETWORK_TRANSPORT = "network.transport"
RPC_STATUS = "rpc.response.status_code"
TOOL_NAME = "gen_ai.tool.name"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  (a name, not a secret)

PROJECT = "understudy.project"
API_KEY_ID = "understudy.api_key.id"
BACKEND_ID = "understudy.backend.id"
BACKEND_MODEL = "understudy.backend.model"
EJECTION_REASON = "understudy.ejection.reason"
RELOAD_OUTCOME = "understudy.reload.outcome"
PROJECT = "understudy.project"
API_KEY_ID = "understudy.api_key.id"
VECTOR_STORE_ID = "understudy.vector_store.id"
FILE_ID = "understudy.file.id"
INGESTION_STATUS = "understudy.ingestion.status"
INGESTION_ATTEMPT = "understudy.ingestion.attempt"
CHUNK_COUNT = "understudy.chunk.count"
CHUNK_SOURCE = "understudy.chunk.source"
DETECTOR_NAME = "understudy.detector.name"
DETECTOR_TEXTS = "understudy.detector.texts"
DETECTOR_FLAGGED = "understudy.detector.flagged"
STORE_OUTCOME = "understudy.store.outcome"
BATCH_ID = "understudy.batch.id"
BATCH_ENDPOINT = "understudy.batch.endpoint"
BATCH_STATUS = "understudy.batch.status"
BATCH_ATTEMPT = "understudy.batch.attempt"
LIMIT_KIND = "understudy.limit.kind"
BATCH_LINE_OUTCOME = "understudy.batch.line.outcome"

M_HTTP_DURATION = "http.server.request.duration"
M_HTTP_ACTIVE = "http.server.active_requests"
M_DURATION = "gen_ai.client.operation.duration"
M_TOKENS = "gen_ai.client.token.usage"
M_TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
M_MCP_DURATION = "mcp.client.operation.duration"
M_UPSTREAM_CONNECTIONS = "understudy.upstream.connections"
M_UPSTREAM_UP = "understudy.upstream.up"
M_UPSTREAM_IN_FLIGHT = "understudy.upstream.in_flight"
M_UPSTREAM_STATE = "understudy.upstream.state"
M_UPSTREAM_EJECTIONS = "understudy.upstream.ejections"
M_RETRIES = "understudy.retries"
M_RETRIES_REFUSED = "understudy.retries.refused"
M_RELOADS = "understudy.config.reloads"
M_RELOAD_FAILED = "understudy.config.failed"
M_INGESTION_DURATION = "understudy.ingestion.duration"
M_INGESTION_WAIT = "understudy.ingestion.wait"
M_INGESTION_CHUNKS = "understudy.ingestion.chunks"
M_INGESTION_ACTIVE = "understudy.ingestion.active"
M_STORE_DURATION = "understudy.chat_completion.store.duration"
M_BATCH_LINE_DURATION = "understudy.batch.line.duration"
M_BATCH_ACTIVE = "understudy.batch.active"
M_LIMIT_REFUSALS = "understudy.limits.refused"
M_LIMIT_STORE_FAILURES = "understudy.limits.store.failures"
M_LIMIT_UNCOUNTED = "understudy.limits.uncounted"
M_USAGE_LOST = "understudy.usage.lost"

HTTP_DURATION_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
DURATION_BUCKETS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
FIRST_CHUNK_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
INGESTION_BUCKETS = (
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
STORE_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
CHUNK_BUCKETS = tuple(float(4**power) for power in range(10))
