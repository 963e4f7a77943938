// The chat at "/": asks /v1/chat/completions of the server it came from, and nobody else.

const byId = (id) => document.getElementById(id);
const [chat, form, question, send] = ["chat", "form", "question", "send"].map(byId);

const SOURCES = {
  target: "the model",
  context: "this chat",
  model: "past answers",
  statistics: "imported",
  drafter: "drafter",
  grammar: "grammar",
};
const LOOK_UPS = {
  target: "target",
  context: "context",
  database: "model",
  "database/statistics": "statistics",
  grammar: "grammar",
};
const FENCE = /^ {0,3}(```+|~~~+)/;
const INLINE = /(`+)(?!`)(.+?)(?<!`)\1(?!`)|\*\*(?=\S)(.+?)\*\*/g;

let messages = []; // {role, content, sources: [[length, source]], isCut}
let running = null; // the AbortController of the answer under way

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// Drawing

function draw(message, place) {
  place.className = message.isCut ? "assistant cut" : "assistant";
  place.replaceChildren();
  if (byId("tint").checked) drawSources(message, place);
  else drawText(message.content, place);
}

function drawSources(message, place) {
  place.classList.add("tinted");
  const characters = Array.from(message.content); // lengths count characters, not UTF-16 units
  let start = 0;
  for (const [length, source] of message.sources) {
    const span = element("span", "", characters.slice(start, start + length).join(""));
    span.dataset.source = LOOK_UPS[source] ?? "drafter";
    place.append(span);
    start += length;
  }
  place.append(characters.slice(start).join(""));
}

function drawText(text, place) {
  let fence = "";
  let lines = [];
  const flush = () => {
    if (fence) place.append(element("pre", "", lines.join("\n")));
    else drawProse(lines.join("\n").replace(/^\n+|\n+$/g, ""), place);
    lines = [];
  };
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line)?.[1] ?? "";
    if (mark && (!fence || mark.startsWith(fence))) {
      flush();
      fence = fence ? "" : mark;
    } else lines.push(line);
  }
  if (lines.length) flush();
}

function drawProse(text, place) {
  if (!text) return;
  const part = element("p", "");
  let start = 0;
  for (const found of text.matchAll(INLINE)) {
    part.append(text.slice(start, found.index));
    part.append(element(found[1] ? "code" : "strong", "", found[2] ?? found[3]));
    start = found.index + found[0].length;
  }
  part.append(text.slice(start));
  place.append(part);
}

function isAtEnd() {
  return chat.scrollHeight - chat.scrollTop - chat.clientHeight < 40;
}

function keepAtEnd(change) {
  const wasAtEnd = isAtEnd();
  change();
  if (wasAtEnd) chat.scrollTop = chat.scrollHeight;
}

function showFigures(timings, speculation) {
  if (!timings) return;
  const parts = [];
  if (timings.predicted_per_second) parts.push(`${timings.predicted_per_second.toFixed(1)} tok/s`);
  if (speculation?.speedup) parts.push(`${speculation.speedup.toFixed(2)}x plain`);
  if (timings.draft_n) {
    const share = (100 * timings.draft_n_accepted) / timings.draft_n;
    parts.push(`${share.toFixed(0)}% of ${timings.draft_n} drafted tokens kept`);
  }
  byId("figures").textContent = parts.join(" · ");
}

// Asking

function headers() {
  const key = sessionStorage.getItem("key");
  const common = { "content-type": "application/json" };
  return key ? { ...common, authorization: `Bearer ${key}` } : common;
}

function askForKey() {
  return new Promise((resolve) => {
    const dialog = byId("ask-key");
    const use = () => {
      sessionStorage.setItem("key", byId("key").value);
      byId("key").value = "";
      resolve();
    };
    dialog.addEventListener("close", use, { once: true });
    dialog.showModal();
  });
}

async function request(path, options = {}) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: headers() });
    if (response.ok) return response;
    if (response.status !== 401) {
      const told = await response.json().catch(() => ({}));
      throw new Error(told.error?.message ?? `the server answered ${response.status}`);
    }
    await askForKey();
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

async function answer(place, message) {
  const body = {
    model: byId("model").value || undefined,
    messages: messages.slice(0, -1).map(({ role, content }) => ({ role, content })),
    stream: true,
    return_sources: true,
    timings_per_token: true,
    speculate: byId("speculate").checked,
  };
  const response = await request("v1/chat/completions", {
    method: "POST",
    body: JSON.stringify(body),
    signal: running.signal,
  });
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const text = event.choices?.[0]?.delta?.content ?? "";
    message.content += text;
    message.sources.push(...(event.sources ?? []));
    message.isCut = event.choices?.[0]?.finish_reason === "length";
    showFigures(event.timings, event.speculation);
    if (text) keepAtEnd(() => draw(message, place));
  }
}

async function ask(text) {
  byId("welcome").hidden = true;
  messages.push({ role: "user", content: text, sources: [] });
  chat.append(element("p", "user", text));
  const message = { role: "assistant", content: "", sources: [], isCut: false };
  messages.push(message);
  const place = element("div", "assistant");
  chat.append(place);
  chat.scrollTop = chat.scrollHeight;
  setRunning(new AbortController());
  try {
    await answer(place, message);
  } catch (error) {
    if (error.name !== "AbortError") chat.append(element("p", "error", error.message));
    message.isCut = true;
  }
  setRunning(null);
  if (messages.at(-1) !== message) return; // a new chat was begun
  draw(message, place);
  if (!message.content) { // nothing came of it: it can be asked again
    messages = messages.slice(0, -2);
    question.value ||= text;
    place.remove();
  }
  question.focus();
}

function setRunning(controller) {
  running = controller;
  send.textContent = controller ? "Stop" : "Send";
  chat.setAttribute("aria-busy", String(controller !== null));
}

// Events

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (running) running.abort();
  else if (text) {
    question.value = "";
    ask(text);
  }
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!running) form.requestSubmit();
  }
  if (event.key === "Escape" && running) running.abort();
});

byId("new").addEventListener("click", () => {
  running?.abort();
  messages = [];
  chat.replaceChildren();
  byId("figures").textContent = "";
  byId("welcome").hidden = false;
  question.focus();
});

byId("tint").addEventListener("change", (event) => {
  byId("legend").hidden = !event.target.checked;
  const places = chat.querySelectorAll(".assistant");
  messages
    .filter((message) => message.role === "assistant")
    .forEach((message, index) => places[index] && draw(message, places[index]));
});

for (const [source, label] of Object.entries(SOURCES)) {
  const entry = element("li", "", label);
  entry.dataset.source = source;
  byId("legend").append(entry);
}

request("v1/models")
  .then((response) => response.json())
  .then(({ data }) => byId("model").replaceChildren(...data.map(({ id }) => new Option(id, id))))
  .catch((error) => chat.append(element("p", "error", error.message)));
