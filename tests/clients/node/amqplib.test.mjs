// amqplib, the client of most JavaScript programs, against the broker named by AMQP_URL.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { afterEach, beforeEach, test } from "node:test";
import amqp from "amqplib";

const url = process.env.AMQP_URL;
let connection;
let channel;
let name;

beforeEach(async () => {
  name = `test-${randomUUID()}`;
  connection = await amqp.connect(url);
  channel = await connection.createChannel();
});

afterEach(async () => {
  await connection.close();
});

// An async iterator over what a consumer gets.
async function consume(on, queue, options) {
  const messages = [];
  const waiting = [];
  const { consumerTag } = await on.consume(
    queue,
    (message) => (waiting.length ? waiting.shift()(message) : messages.push(message)),
    options,
  );
  const next = () =>
    messages.length
      ? Promise.resolve(messages.shift())
      : new Promise((resolve) => waiting.push(resolve));
  return { consumerTag, next, pending: () => messages.length };
}

test("the server says it is RabbitMQ", () => {
  const properties = connection.connection.serverProperties;
  assert.equal(properties.product, "RabbitMQ");
  assert.equal(properties.capabilities.publisher_confirms, true);
});

test("properties and headers arrive as sent", async () => {
  await channel.assertQueue(name, { exclusive: true });
  const headers = {
    text: "grüße",
    number: 42,
    negative: -5000000000,
    float: 1.5,
    flag: true,
    nothing: null,
    list: [1, "two", [3]],
    table: { deep: { deeper: "x" } },
    bytes: Buffer.from([0, 255]),
  };
  const options = {
    headers,
    contentType: "text/plain",
    contentEncoding: "identity",
    persistent: true,
    priority: 5,
    correlationId: "c",
    replyTo: "r",
    expiration: "60000",
    messageId: "m",
    timestamp: 1700000000,
    type: "t",
    userId: "guest",
    appId: "a",
  };
  channel.sendToQueue(name, Buffer.from("body"), options);
  const { next } = await consume(channel, name, { noAck: true });
  const { content, fields, properties } = await next();
  assert.equal(content.toString(), "body");
  assert.deepEqual(properties.headers, headers);
  for (const key of Object.keys(options)) {
    if (key === "persistent") assert.equal(properties.deliveryMode, 2);
    else if (key !== "headers") assert.equal(properties[key], options[key], key);
  }
  assert.equal(fields.redelivered, false);
  assert.equal(fields.routingKey, name);
});

test("a confirm channel waits for the broker", async () => {
  const confirming = await connection.createConfirmChannel();
  await confirming.assertQueue(name, { exclusive: true });
  for (let number = 0; number < 1000; number += 1) {
    confirming.sendToQueue(name, Buffer.from(String(number)));
  }
  await confirming.waitForConfirms();
  assert.equal((await confirming.checkQueue(name)).messageCount, 1000);
});

test("an unroutable mandatory message is returned before its confirm", async () => {
  const confirming = await connection.createConfirmChannel();
  const events = [];
  confirming.on("return", (message) => events.push(message.fields.replyText));
  await new Promise((resolve) =>
    confirming.publish("", name, Buffer.from("body"), { mandatory: true }, () => {
      events.push("confirmed");
      resolve();
    }),
  );
  assert.deepEqual(events, ["NO_ROUTE", "confirmed"]);
});

test("a large body arrives whole in frames of 4096 octets", async () => {
  const separator = url.includes("?") ? "&" : "?";
  const small = await amqp.connect(`${url}${separator}frameMax=4096`);
  const on = await small.createChannel();
  await on.assertQueue(name, { exclusive: true });
  const body = Buffer.alloc(1_000_000, "0123456789");
  on.sendToQueue(name, body);
  const { next } = await consume(on, name, { noAck: true });
  assert.ok((await next()).content.equals(body));
  await small.close();
});

test("prefetch, acknowledgement and requeue", async () => {
  await channel.assertQueue(name, { exclusive: true });
  await channel.prefetch(2);
  const confirming = await connection.createConfirmChannel();
  for (const body of ["0", "1", "2"]) confirming.sendToQueue(name, Buffer.from(body));
  await confirming.waitForConfirms();
  const { next, pending } = await consume(channel, name);
  const first = await next();
  const second = await next();
  assert.equal((await channel.checkQueue(name)).messageCount, 1);
  assert.equal(pending(), 0);
  channel.nack(first);
  const again = await next();
  assert.equal(again.content.toString(), "0");
  assert.equal(again.fields.redelivered, true);
  channel.ack(second);
  assert.equal((await next()).content.toString(), "2");
  channel.ackAll();
});

test("get answers false when the queue is empty", async () => {
  await channel.assertQueue(name, { exclusive: true });
  assert.equal(await channel.get(name), false);
});

test("what expires or is rejected goes to the dead-letter exchange", async () => {
  await channel.assertExchange(name, "fanout", { durable: false, autoDelete: true });
  const dead = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(dead.queue, name, "");
  const { next } = await consume(channel, dead.queue, { noAck: true });
  await channel.assertQueue(`${name}-jobs`, { exclusive: true, deadLetterExchange: name });
  const jobs = await consume(channel, `${name}-jobs`);
  channel.sendToQueue(`${name}-jobs`, Buffer.from("poison"));
  channel.nack(await jobs.next(), false, false);
  const poison = await next();
  assert.equal(poison.content.toString(), "poison");
  assert.equal(poison.properties.headers["x-death"][0].reason, "rejected");
  await channel.cancel(jobs.consumerTag);
  // Behind one that lives longer.
  channel.sendToQueue(`${name}-jobs`, Buffer.from("long"), { expiration: 60000 });
  channel.sendToQueue(`${name}-jobs`, Buffer.from("short"), { expiration: 20 });
  const short = await next();
  assert.equal(short.content.toString(), "short");
  assert.equal(short.properties.expiration, undefined);
  const [death] = short.properties.headers["x-death"];
  assert.deepEqual(
    [death.reason, death.queue, death["original-expiration"]],
    ["expired", `${name}-jobs`, "20"],
  );
});

test("what has a higher priority goes first", async () => {
  await channel.assertQueue(name, { exclusive: true, maxPriority: 10 });
  for (const priority of [1, 10, 5, 10]) {
    channel.sendToQueue(name, Buffer.from(String(priority)), { priority });
  }
  await channel.checkQueue(name);
  const { next } = await consume(channel, name, { noAck: true });
  const got = [];
  for (let count = 0; count < 4; count += 1) got.push((await next()).content.toString());
  assert.deepEqual(got, ["10", "10", "5", "1"]);
});

test("a full queue that refuses is a nack", async () => {
  const confirming = await connection.createConfirmChannel();
  const options = { exclusive: true, maxLength: 1, arguments: { "x-overflow": "reject-publish" } };
  await confirming.assertQueue(name, options);
  const send = (text) =>
    new Promise((resolve) => {
      confirming.sendToQueue(name, Buffer.from(text), {}, (error) => resolve(!error));
    });
  assert.equal(await send("one"), true);
  assert.equal(await send("two"), false);
  assert.equal((await confirming.get(name, { noAck: true })).content.toString(), "one");
  assert.equal(await send("three"), true);
});

test("a delayed message comes when it is due", async () => {
  const options = { durable: false, autoDelete: true, arguments: { "x-delayed-type": "topic" } };
  await channel.assertExchange(name, "x-delayed-message", options);
  await channel.assertQueue(name, { exclusive: true });
  await channel.bindQueue(name, name, "order.#");
  const { next } = await consume(channel, name, { noAck: true });
  const began = Date.now();
  for (const delay of [300, 100, 0]) {
    const headers = { "x-delay": delay };
    channel.publish(name, "order.placed", Buffer.from(String(delay)), { headers });
  }
  for (const delay of [0, 100, 300]) {
    const message = await next();
    assert.equal(message.content.toString(), String(delay));
    assert.ok(Date.now() - began >= delay - 5);
    assert.equal(message.properties.headers["x-delay"], 0 - delay);
  }
});

test("a channel error is an event of the channel only", async () => {
  const failing = await connection.createChannel();
  const failed = once(failing, "error");
  await assert.rejects(failing.checkQueue(name), /404 \(NOT-FOUND\)/);
  const [error] = await failed;
  assert.equal(error.code, 404);
  await channel.assertQueue(name, { exclusive: true });
});

test("a redeclare with other arguments is refused", async () => {
  const failing = await connection.createChannel();
  failing.on("error", () => {});
  await failing.assertQueue(name, { exclusive: true, maxPriority: 5 });
  await assert.rejects(
    failing.assertQueue(name, { exclusive: true, maxPriority: 6 }),
    /inequivalent arg 'x-max-priority'/,
  );
});

test("a consumer gets null when its queue is deleted", async () => {
  await channel.assertQueue(name, { exclusive: true });
  const { next } = await consume(channel, name);
  await (await connection.createChannel()).deleteQueue(name);
  assert.equal(await next(), null);
});

test("exchanges are bound to exchanges", async () => {
  const [source, target] = [`${name}-source`, `${name}-target`];
  await channel.assertExchange(source, "topic", { autoDelete: true, durable: false });
  await channel.assertExchange(target, "headers", { autoDelete: true, durable: false });
  await channel.bindExchange(target, source, "a.#");
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, target, "", { "x-match": "all", kind: "x" });
  const { next } = await consume(channel, queue, { noAck: true });
  channel.publish(source, "a.b", Buffer.from("unwanted"), { headers: { kind: "y" } });
  channel.publish(source, "a.b", Buffer.from("wanted"), { headers: { kind: "x" } });
  assert.equal((await next()).content.toString(), "wanted");
});

test("direct reply-to carries the answer", async () => {
  await channel.assertQueue(name, { exclusive: true });
  const { next: nextRequest } = await consume(channel, name, { noAck: true });
  const asking = await connection.createChannel();
  const { next: nextAnswer } = await consume(asking, "amq.rabbitmq.reply-to", { noAck: true });
  asking.sendToQueue(name, Buffer.from("question"), { replyTo: "amq.rabbitmq.reply-to" });
  const request = await nextRequest();
  channel.sendToQueue(request.properties.replyTo, Buffer.from("answer"));
  assert.equal((await nextAnswer()).content.toString(), "answer");
});

test("the secret is updated", async () => {
  await connection.updateSecret(Buffer.from("guest"), "rotation");
  await channel.assertQueue(name, { exclusive: true });
});

test("heartbeats keep an idle connection open", async () => {
  const separator = url.includes("?") ? "&" : "?";
  const idle = await amqp.connect(`${url}${separator}heartbeat=1`);
  const ended = once(idle, "close").then(() => "closed");
  const wait = new Promise((resolve) => setTimeout(resolve, 3500, "open"));
  assert.equal(await Promise.race([ended, wait]), "open");
  await (await idle.createChannel()).assertQueue(name, { exclusive: true });
  await idle.close();
});

test("a wrong password is refused", async () => {
  await assert.rejects(amqp.connect(url.replace("guest:guest", "guest:wrong")), /403|ACCESS_REFUSED/);
});
