CREATE TABLE users (id text PRIMARY KEY, orders bigint NOT NULL);
CREATE TABLE orders (
  id   text PRIMARY KEY, -- of the event
  key  text NOT NULL,
  n    bigint NOT NULL,
  kind text NOT NULL,
  slot int NOT NULL DEFAULT (pg_sequence_last_value('outbox.slot_seq') & 7), -- for people: where its event is
  at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (key, n)
);
GRANT SELECT, INSERT, UPDATE ON users TO outbox_writer;
GRANT SELECT, INSERT ON orders TO outbox_writer;
