// The try-it page. Everything that comes from the server enters the page as text, never as HTML.

const TEXTS = {
  en: {
    docs: "API reference", setup: "Set-up", token: "Token", collection: "Collection",
    tokenHint: "A bearer token, as in var/admin.token. It stays in this tab.",
    refresh: "Refresh", newCollection: "New collection", create: "Create", model: "Model",
    upload: "Documents", dropHere: "Drop files here, or choose them:", ask: "Ask",
    question: "Ask the documents a question, in English or Japanese", mode: "Search",
    hybrid: "Hybrid", dense: "Meaning", sparse: "Words", stream: "Stream",
    conversation: "Follow-ups", stop: "Stop", send: "Ask", confidence: "Confidence",
    passages: "Passages", noPassages: "What was found stands here, beside the answer that cites it.",
    noCollections: "(none yet)", other: "日本語", page: "p. ", healthy: "All services answer",
    down: "Not available: ", busy: "reading…", chunks: " passages, ", indexed: "indexed",
    replaced: "replaced", unchanged: "unchanged", needToken: "Paste a token first.",
    needCollection: "Choose or create a collection first.", lost: "The gateway does not answer.",
    brokeOff: "The answer broke off.",
  },
  ja: {
    docs: "API リファレンス", setup: "設定", token: "トークン", collection: "コレクション",
    tokenHint: "var/admin.token などのベアラートークン。このタブの中にだけ保持されます。",
    refresh: "更新", newCollection: "新しいコレクション", create: "作成", model: "モデル",
    upload: "文書", dropHere: "ここにファイルをドロップするか、選択してください:", ask: "質問",
    question: "文書に質問してください（日本語・英語）", mode: "検索方法",
    hybrid: "ハイブリッド", dense: "意味", sparse: "語句", stream: "逐次表示",
    conversation: "続けて質問", stop: "停止", send: "質問する", confidence: "確信度",
    passages: "根拠となる文章", noPassages: "見つかった文章が、引用した回答の隣に表示されます。",
    noCollections: "（まだありません）", other: "English", page: "p. ", healthy: "全サービス稼働中",
    down: "利用できません: ", busy: "読み込み中…", chunks: " 件, ", indexed: "登録しました",
    replaced: "更新しました", unchanged: "変更なし", needToken: "先にトークンを貼り付けてください。",
    needCollection: "先にコレクションを選ぶか作成してください。", lost: "ゲートウェイが応答しません。",
    brokeOff: "回答が途中で切れました。",
  },
};

const $ = (id) => document.getElementById(id);
const say = (key) => TEXTS[language][key];
let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");
let session = newSession();
let running = null;
let sources = [];

function newSession() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return "page-" + [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll("[data-placeholder]")) element.placeholder = say(element.dataset.placeholder);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  $("language").textContent = say("other");
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

async function call(path, options = {}) {
  const token = $("token").value.trim();
  if (!token) throw new Error(say("needToken"));
  const headers = { authorization: `Bearer ${token}`, ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(say("lost"));
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error(body.error?.message ?? `${response.status} ${response.statusText}`);
  }
  return response;
}

const post = (path, body, options = {}) =>
  call(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, ...options });

// set-up

async function loadCollections(chosen) {
  const collections = [];
  let after = "";
  do {
    const page = await (await call(`/v1/collections?limit=1000&after=${encodeURIComponent(after)}`)).json();
    collections.push(...page.collections);
    after = page.next;
  } while (after);
  const select = $("collection");
  const kept = chosen ?? (select.value || localStorage.getItem("collection"));
  select.replaceChildren();
  for (const each of collections) select.append(new Option(`${each.name} (${each.documents})`, each.name));
  if (!collections.length) select.append(new Option(say("noCollections"), ""));
  if (collections.some((each) => each.name === kept)) select.value = kept;
}

async function loadModels() {
  const models = (await (await call("/v1/models")).json()).data;
  const select = $("model");
  const kept = select.value || "default";
  select.replaceChildren();
  for (const each of models) {
    if (/embedding|encoder|MiniLM/i.test(each.id)) continue;
    select.append(new Option(each.target ? `${each.id} → ${each.target}` : each.id, each.id));
  }
  if ([...select.options].some((option) => option.value === kept)) select.value = kept;
}

async function load(chosen) {
  fail("");
  if (!$("token").value.trim()) return;
  try {
    await Promise.all([loadCollections(chosen), loadModels()]);
  } catch (error) {
    fail(error.message);
  }
}

async function checkHealth() {
  const pill = $("health");
  try {
    const health = await (await fetch("/health")).json();
    const down = Object.entries(health.services).filter(([, each]) => !each.available).map(([name]) => name);
    pill.classList.toggle("bad", down.length > 0);
    pill.textContent = down.length ? say("down") + down.join(", ") : say("healthy");
  } catch {
    pill.classList.add("bad");
    pill.textContent = say("lost");
  }
}

async function upload(files) {
  const collection = $("collection").value;
  if (!collection) return fail(say("needCollection"));
  fail("");
  for (const file of files) {
    const item = make("li", "", `${file.name}: ${say("busy")}`);
    $("uploads").prepend(item);
    const form = new FormData();
    form.append("file", file);
    try {
      const path = `/v1/collections/${encodeURIComponent(collection)}/documents`;
      const [made] = (await (await call(path, { method: "POST", body: form })).json()).documents;
      item.className = "done";
      item.textContent = `${file.name}: ${made.chunks}${say("chunks")}${say(made.status)}`;
    } catch (error) {
      item.className = "bad";
      item.textContent = error.message;
    }
  }
  await load(collection);
}

// answers

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").filter((line) => !line.startsWith(":"))
        .map((line) => { const at = line.indexOf(": "); return [line.slice(0, at), line.slice(at + 2)]; }));
      if (fields.data) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

function showText(text) {
  const shown = $("text");
  shown.replaceChildren();
  for (const part of text.split(/(\[\d+\])/)) {
    const marker = /^\[(\d+)\]$/.exec(part)?.[1];
    if (!marker) { shown.append(part); continue; }
    const button = make("button", "marker", marker);
    button.type = "button";
    button.addEventListener("click", () => light(marker, true));
    button.addEventListener("mouseenter", () => light(marker, false));
    button.addEventListener("mouseleave", () => light(null, false));
    shown.append(button);
  }
}

function light(marker, scroll) {
  for (const element of document.querySelectorAll(".passage")) {
    const lit = element.dataset.marker === marker;
    element.classList.toggle("lit", lit);
    if (lit && scroll) element.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }
}

function showPassages(citations) {
  const list = $("passages");
  list.replaceChildren();
  $("no-passages").hidden = sources.length > 0;
  for (const source of sources) {
    const citation = citations.find((each) => each.marker === source.marker);
    const item = make("li", citation ? "passage cited" : "passage");
    item.dataset.marker = source.marker;
    const title = make("h3");
    title.append(make("span", "marker", source.marker), source.title || source.document_id);
    const where = [source.source, source.page && say("page") + source.page, source.heading].filter(Boolean).join(" · ");
    const quote = make("blockquote");
    const at = citation?.quote ? source.text.indexOf(citation.quote) : -1;
    if (at < 0) quote.textContent = source.text;
    else quote.append(source.text.slice(0, at), make("mark", "", citation.quote), source.text.slice(at + citation.quote.length));
    item.append(title, make("p", "where", where), quote);
    list.append(item);
  }
}

function finish(answer) {
  showText(answer.answer);
  if (!sources.length) sources = answer.citations.map((each) => ({ ...each, text: each.quote }));
  showPassages(answer.citations);
  $("confidence").hidden = false;
  $("meter").value = answer.confidence;
  $("percent").textContent = `${Math.round(answer.confidence * 100)} %`;
  const hops = Object.entries(answer.timings).map(([hop, ms]) => `${hop} ${ms.toFixed(1)} ms`);
  $("facts").textContent = [answer.model, `${answer.usage.total_tokens} tokens`, ...hops].join(" · ");
}

async function ask(question) {
  const collection = $("collection").value;
  if (!collection) return fail(say("needCollection"));
  fail("");
  sources = [];
  showPassages([]);
  $("asked").textContent = question;
  $("facts").textContent = "";
  $("confidence").hidden = true;
  $("answer").hidden = false;
  showText("");
  $("text").classList.add("busy");
  $("send").disabled = true;
  $("stop").hidden = false;
  running = new AbortController();
  const body = { query: question, collection, mode: $("mode").value, stream: $("stream").checked };
  if ($("model").value) body.model = $("model").value;
  if ($("remember").checked) body.session_id = session;
  try {
    const response = await post("/v1/query", body, { signal: running.signal });
    if (!body.stream) return finish(await response.json());
    let text = "";
    let done = false;
    for await (const [name, data] of events(response)) {
      if (name === "sources") { sources = data.sources; showPassages([]); }
      else if (name === "delta") showText(text += data.text);
      else if (name === "done") { finish(data); done = true; }
      else if (data.error) throw new Error(data.error.message);
    }
    if (!done) throw new Error(say("brokeOff"));
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  } finally {
    $("text").classList.remove("busy");
    $("send").disabled = false;
    $("stop").hidden = true;
    running = null;
  }
}

// events of the page

$("token").value = sessionStorage.getItem("token") ?? "";
$("token").addEventListener("change", () => { sessionStorage.setItem("token", $("token").value.trim()); load(); });
$("refresh").addEventListener("click", () => load());
$("collection").addEventListener("change", () => { localStorage.setItem("collection", $("collection").value); session = newSession(); });
$("remember").addEventListener("change", () => { session = newSession(); });
$("stop").addEventListener("click", () => running?.abort());
$("create").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("new-name").value.trim();
  if (!name) return;
  try {
    await post("/v1/collections", { name });
    $("new-name").value = "";
    await load(name);
  } catch (error) {
    fail(error.message);
  }
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (question && !running) ask(question);
});
$("question").addEventListener("keydown", (event) => {
  // Enter also ends a Japanese conversion: that one is not for us.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); }
});
$("files").addEventListener("change", async () => { await upload([...$("files").files]); $("files").value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") upload([...event.dataTransfer.files]);
  });
}
$("language").addEventListener("click", () => {
  language = language === "ja" ? "en" : "ja";
  localStorage.setItem("language", language);
  translate();
  checkHealth();
});

translate();
checkHealth();
setInterval(checkHealth, 15000);
load();
