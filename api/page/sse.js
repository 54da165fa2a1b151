// Server-Sent Events out of a stream of text: EventSource can send no Authorization header. Pure.

export class EventReader {
  #rest = "";

  // The events that are whole by now: {id, event, data}.
  push(text) {
    const blocks = (this.#rest + text).replace(/\r\n?/g, "\n").split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map(read).filter((event) => event.data !== "");
  }
}

function read(block) {
  const event = { id: "", event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
    if (name === "data") event.data += event.data ? `\n${value}` : value;
    else if (name === "id" || name === "event") event[name] = value;
  }
  return event;
}
