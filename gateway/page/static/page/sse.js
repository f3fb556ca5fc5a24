// Server-sent events of a fetch: EventSource can send no API key.

export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event.data !== null) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const event = { type: "message", data: null };
  for (const line of block.split("\n")) {
    const [name, value] = split(line);
    if (name === "event") event.type = value;
    if (name === "data") event.data = event.data === null ? value : `${event.data}\n${value}`;
  }
  return event;
}

function split(line) {
  const at = line.indexOf(":");
  return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
}
