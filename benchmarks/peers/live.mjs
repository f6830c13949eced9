// TanStack DB and RxDB, in memory and each as its documentation says: told what to measure, a line of JSON each on stdin.
import { createInterface } from "node:readline";

const WARM_UP = 200; // until then node has not compiled what it runs
const STATUS = ["open", "started", "done"];
const NEWEST = 1_700_000_000 + 100_000_000;
const id = (number) => `todo-${String(number).padStart(9, "0")}`;
const todo = (number) => ({
  id: id(number), title: `Do the thing number ${number}`, status: STATUS[number % 3], priority: number % 5,
  weight: number / 7, user: `user-${number % 1000}`, created_at: 1_700_000_000 + number, notes: "x".repeat(40),
});

async function tanstack(rows) {
  const db = await import("@tanstack/db");
  let channel;
  const todos = db.createCollection({
    id: "todos", getKey: (row) => row.id, startSync: true, autoIndex: "eager", defaultIndexType: db.BTreeIndex,
    sync: {
      sync: (given) => {
        channel = given;
        given.begin();
        for (let number = 0; number < rows; number++) given.write({ type: "insert", value: todo(number) });
        given.commit();
        given.markReady();
      },
    },
  });
  await todos.preload();
  todos.createIndex((row) => row.created_at);
  todos.createIndex((row) => row.status);
  todos.createIndex((row) => row.user);
  const shapes = {
    top: (from) => from.where(({ t }) => db.eq(t.status, "open")).orderBy(({ t }) => t.created_at, "desc").limit(50),
    all: (from) => from.orderBy(({ t }) => t.created_at),
    user: (from, number) => from.where(({ t }) => db.eq(t.user, `user-${number}`)),
  };
  return {
    async follow(shape, number, told) {
      const live = db.createLiveQueryCollection({ startSync: true, query: (q) => shapes[shape](q.from({ t: todos }), number) });
      await live.preload();
      const subscription = live.subscribeChanges(told);
      return () => (subscription.unsubscribe(), live.cleanup());
    },
    update(row) {
      channel.begin();
      channel.write({ type: "update", value: row });
      channel.commit();
    },
  };
}

async function rxdb(rows) {
  const { createRxDatabase, addRxPlugin } = await import("rxdb");
  const { getRxStorageMemory } = await import("rxdb/plugins/storage-memory");
  const text = { type: "string", maxLength: 40 };
  const number = { type: "number", minimum: 0, maximum: 3_000_000_000, multipleOf: 1 };
  const database = await createRxDatabase({ name: `todos-${rows}`, storage: getRxStorageMemory(), multiInstance: false, eventReduce: true });
  const { todos } = await database.addCollections({
    todos: {
      schema: {
        version: 0, type: "object", primaryKey: "id",
        properties: {
          id: text, title: { type: "string" }, status: text, priority: { type: "number" }, weight: { type: "number" },
          user: text, created_at: number, notes: { type: "string" },
        },
        required: ["id", "status", "user", "created_at"],
        indexes: [["status", "created_at"], ["user", "created_at"], "created_at"],
      },
    },
  });
  for (let start = 0; start < rows; start += 10_000) {
    await todos.bulkInsert(Array.from({ length: Math.min(10_000, rows - start) }, (_, at) => todo(start + at)));
  }
  const shapes = {
    top: () => todos.find({ selector: { status: "open" }, sort: [{ created_at: "desc" }], limit: 50 }),
    all: () => todos.find({ sort: [{ created_at: "asc" }] }),
    user: (number) => todos.find({ selector: { user: `user-${number}` } }),
  };
  return {
    async follow(shape, number, told) {
      let first = true;
      let ready;
      const waiting = new Promise((done) => (ready = done));
      const subscription = shapes[shape](number).$.subscribe((found) => {
        if (first) (first = false), ready();
        else told(found);
      });
      await waiting;
      return () => subscription.unsubscribe();
    },
    update: (row) => todos.upsert(row),
  };
}

const open = { tanstack, rxdb }[process.argv[2]];
let engine;
let turn = 0;

async function measure({ shape, subscriptions, writes, rows }) {
  let heard;
  const began = performance.now();
  const leave = [];
  for (let number = 0; number < subscriptions; number++) {
    leave.push(await engine.follow(shape, number, () => heard?.()));
  }
  const setup = (performance.now() - began) / 1000;
  const taken = [];
  for (let write = -WARM_UP; write < writes; write++) {
    turn++;
    const number = shape === "user" ? (write + WARM_UP) % Math.min(subscriptions, 1000) : ((write + WARM_UP) * 291) % rows;
    const at = shape === "user" ? 1_600_000_000 + turn : shape === "all" ? 1_700_000_000 - turn : NEWEST + turn;
    const row = { ...todo(number), title: `changed ${turn}`, status: "open", created_at: at };
    const before = performance.now();
    const told = new Promise((done) => (heard = done));
    await engine.update(row);
    await told;
    if (write >= 0) taken.push((performance.now() - before) / 1000);
  }
  for (const each of leave) await each();
  taken.sort((one, other) => one - other);
  return { seconds: taken[Math.floor(taken.length / 2)], setup };
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  engine ??= await open(order.rows);
  console.log(JSON.stringify(await measure(order)));
}
