// One flow with the client that openapi-typescript and openapi-fetch make of /openapi.json.

import createClient from "openapi-fetch";

import type { components, paths } from "./wallet.js";

declare const process: { argv: string[] };

const api = createClient<paths>({ baseUrl: process.argv[2] ?? "http://localhost:8089" });

function must<T>(found: { data?: T; error?: unknown }): T {
  if (found.data === undefined) throw new Error(JSON.stringify(found.error));
  return found.data;
}

const wallet = must(await api.POST("/v1/wallet", { body: {} }));
const path = { wallet_id: wallet.id };
console.log(`created: ${wallet.currency} ${wallet.status} ${wallet.balance}`);

const debit = must(
  await api.POST("/v1/wallet/{wallet_id}/transfers/debit", {
    params: { path },
    body: { amount: "10.50", status: "completed" },
  }),
);
console.log(`debited: ${debit.amount} ${debit.status}, balance ${debit.wallet.balance}`);

const hold = () =>
  api.POST("/v1/wallet/{wallet_id}/transfers/credit", {
    params: { path, header: { "Idempotency-Key": `hold-${wallet.id}` } },
    body: { amount: "4.00" },
  });
const first = must(await hold());
const again = await hold();
if (must(again).id !== first.id) throw new Error("a replay is the first response");
const replayed = again.response.headers.get("Idempotency-Replayed");
console.log(`held: ${first.amount} ${first.status}, replayed ${replayed}`);

const completed = must(
  await api.POST("/v1/wallet/{wallet_id}/transfers/{transfer_id}/complete", {
    params: { path: { ...path, transfer_id: first.id } },
  }),
);
console.log(`completed: ${completed.status}, balance ${completed.wallet.balance}`);

const types: components["schemas"]["TransferType"][] = [];
let cursor: string | undefined;
do {
  const page = must(
    await api.GET("/v1/wallet/{wallet_id}/transfers", {
      params: { path, query: { limit: 1, cursor, min_version: completed.wallet.version } },
    }),
  );
  types.push(...page.items.map((transfer) => transfer.type));
  cursor = page.next_cursor ?? undefined;
} while (cursor !== undefined);
console.log(`listed: ${types.join(" ")}`);

const refused = await api.POST("/v1/wallet/{wallet_id}/transfers/credit", {
  params: { path },
  body: { amount: "100", status: "completed" },
});
console.log(`refused: ${refused.response.status} ${refused.error?.code}`);

const batch = must(
  await api.POST("/v1/wallet/{wallet_id}/transfers/batch", {
    params: { path },
    body: {
      items: [
        { type: "debit", amount: "1.00", status: "completed" },
        { type: "credit", amount: "100" },
      ],
    },
  }),
);
const results = batch.items.map((item) => item.transfer?.status ?? item.problem?.code);
console.log(`batch: ${results.join(" ")}, balance ${batch.wallet?.balance}`);
