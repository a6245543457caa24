-- No constraint keeps an effect from happening twice: that would hide it.
CREATE TABLE effects (
  seq      bigint GENERATED ALWAYS AS IDENTITY,
  consumer text NOT NULL,
  id       text NOT NULL, -- of the event
  of       text NOT NULL, -- order or derived
  key      text NOT NULL,
  n        bigint NOT NULL,
  member   text NOT NULL,
  at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE derivations (consumer text, key text, n bigint NOT NULL, PRIMARY KEY (consumer, key));
CREATE TABLE derived (
  id       text PRIMARY KEY,
  consumer text NOT NULL,
  key      text NOT NULL,
  n        bigint NOT NULL,
  cause    text NOT NULL,
  slot     int NOT NULL DEFAULT (pg_sequence_last_value('outbox.slot_seq') & 7),
  at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Poison that its handler takes from now on.
CREATE TABLE cured (id text PRIMARY KEY);
GRANT outbox_writer TO inbox_consumer;
GRANT SELECT, INSERT ON effects, derived TO inbox_consumer;
GRANT SELECT, INSERT, UPDATE ON derivations TO inbox_consumer;
GRANT SELECT ON cured TO inbox_consumer;
