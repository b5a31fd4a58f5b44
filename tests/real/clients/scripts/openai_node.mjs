// The official OpenAI SDK for Node: prints one line of JSON.
import OpenAI, { toFile } from "openai";

const { BASE_URL, LEGACY_URL, CHAT_MODEL, EMBEDDING_MODEL, QUESTION } = process.env;
const ask = {
  model: CHAT_MODEL,
  messages: [{ role: "user", content: QUESTION }],
  temperature: 0,
  max_tokens: 20,
};

const clientOf = (baseURL) => new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });

async function failure(client, changes) {
  try {
    await client.chat.completions.create({ ...ask, ...changes });
  } catch (error) {
    return {
      class: error.constructor.name,
      status: error.status,
      message: error.message,
      param: error.param,
      request_id: error.requestID,
    };
  }
  return { class: null };
}

async function documents(client) {
  const text = "A volunteer gets eleven days of leave a year.";
  const file = await client.files.create({
    file: await toFile(Buffer.from(text), "Handbuch für Wärter.txt"),
    purpose: "assistants",
  });
  const store = await client.vectorStores.create({ name: "handbook" });
  const attached = await client.vectorStores.files.createAndPoll(store.id, { file_id: file.id });
  const hits = await client.vectorStores.search(store.id, { query: "How much leave?" });
  const said = {
    attached: attached.status,
    filename: hits.data[0].filename,
    hit: hits.data[0].content[0].text,
    same_bytes: (await (await client.files.content(file.id)).text()) === text,
    store_deleted: (await client.vectorStores.delete(store.id)).deleted,
    file_deleted: (await client.files.delete(file.id)).deleted,
  };
  return said;
}

const client = clientOf(BASE_URL);
const chat = await client.chat.completions.create(ask);
const pieces = [];
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  for (const choice of chunk.choices) pieces.push(choice.delta.content ?? "");
}
const embeddings = await client.embeddings.create({
  model: EMBEDDING_MODEL,
  input: ["hello world", "a cat sat"],
});
const legacy = await clientOf(LEGACY_URL).chat.completions.create(ask);

console.log(
  JSON.stringify({
    chat: chat.choices[0].message.content,
    request_id: chat._request_id,
    stream: pieces.join(""),
    pieces: pieces.filter(Boolean).length,
    dimensions: embeddings.data.map((item) => item.embedding.length),
    legacy: legacy.choices[0].message.content,
    documents: await documents(client),
    unknown_model: await failure(client, { model: "no-such-model" }),
    embedding_model: await failure(client, { model: EMBEDDING_MODEL }),
    hot: await failure(client, { temperature: "hot" }),
  }),
);
