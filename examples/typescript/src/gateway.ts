/** The gateway as one application sees it: JSON requests, and a stream of events. */

/** The gateway's refusal of a request: a problem document (RFC 9457). */
export class Problem extends Error {
  constructor(readonly status: number, readonly members: Record<string, any>) {
    super(members.detail);
  }

  /** Whether it is of this type, such as `stale-epoch`. The page `/problems/stale-epoch` explains it. */
  is(slug: string): boolean {
    return this.members.type === `/problems/${slug}`;
  }
}

/** An event of a stream. Its `data` is described under "Event streams" in the gateway's `/docs`. */
export interface GatewayEvent {
  kind: string;
  data: any;
}

export class Gateway {
  constructor(readonly url: string, private readonly app: string, private readonly token: string) {}

  /** Sends a request about the application, such as `POST /clients`. Throws a `Problem` if the gateway refuses it. */
  async send(method: string, path: string, body?: object): Promise<any> {
    const response = await this.fetch(method, path, body);
    return response.status === 204 ? undefined : response.json();
  }

  /** Opens the application's event stream. It has every event from now on. */
  async events(): Promise<AsyncGenerator<GatewayEvent, void>> {
    const response = await this.fetch("GET", "/events");
    return readEvents(response.body!);
  }

  private async fetch(method: string, path: string, body?: object): Promise<Response> {
    const response = await fetch(`${this.url}/apps/${this.app}${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
    });
    if (response.ok) return response;
    if (response.headers.get("Content-Type") !== "application/problem+json") {
      throw new Error(`${this.url} is not a gateway: it answered with status ${response.status}`);
    }
    throw new Problem(response.status, await response.json());
  }
}

/**
 * Reads server-sent events. Each is a block of lines `name: value`, and ends with an empty line.
 *
 * A server that runs for long stores the `id` of the last event that it handled, and opens its next stream with
 * `?after=` and that id. No event is lost or repeated then.
 */
async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<GatewayEvent, void> {
  let received = "";
  const decoder = new TextDecoder();
  for await (const chunk of body) {
    received += decoder.decode(chunk, { stream: true });
    const blocks = received.split("\n\n");
    received = blocks.pop()!;
    for (const block of blocks) {
      const lines = block.split("\n");
      const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const [kind, data] = [field("event"), field("data")];
      // Blocks without them keep the connection open, or hold only the id of the place where the stream begins.
      if (kind && data) yield { kind, data: JSON.parse(data) };
    }
  }
}
