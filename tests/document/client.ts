// What a TypeScript caller writes on the types that openapi-typescript makes from the document. It is type-checked, not run.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

type CommitUpload = components["schemas"]["CommitUpload"];

const api = createClient<paths>({ baseUrl: "http://127.0.0.1:8080", headers: { Authorization: "Bearer token" } });

export async function register(appId: string, clientHandle: string): Promise<string> {
  const { data, error } = await api.POST("/apps/{appId}/clients", {
    params: { path: { appId } },
    body: { clientHandle, tags: [`account:${clientHandle}`] },
  });
  if (data !== undefined) {
    return data.clientId;
  }
  if (error.type === "/problems/client-handle-taken") {
    return error.clientId;
  }
  throw new Error(error.detail);
}

// Returns the epoch from which a member that lost has to catch up.
export async function commit(appId: string, groupId: string, body: CommitUpload): Promise<number | undefined> {
  const { error } = await api.PUT("/apps/{appId}/groups/{groupId}/epochs", {
    params: { path: { appId, groupId } },
    body,
  });
  return error?.type === "/problems/stale-epoch" ? error.currentEpochId : undefined;
}

export async function welcomes(appId: string, clientHandle: string): Promise<string[]> {
  const { data } = await api.GET("/apps/{appId}/clients/{clientHandle}/welcome-msgs", {
    params: { path: { appId, clientHandle }, query: { waitMs: 20_000 } },
  });
  return data?.joinInfos.map((join) => join.welcome) ?? [];
}
