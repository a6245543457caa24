-- The inbox: what a service has consumed, in its own database, beside the tables
-- that its handlers change. How it is used, and why: docs/architecture.md.

-- Who consumes. The short id keeps the rows of seen small.
CREATE TABLE {{.schema}}.consumer (
  id          integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name        text        NOT NULL UNIQUE CONSTRAINT consumer_name_not_empty CHECK (name <> ''),
  window_days smallint    NOT NULL, -- as configured at the latest start; a slot is needed as long as the widest window
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Claims of events whose id tells their day: slot = day % 34, the day being that
-- of the UUIDv7 in UTC. 34 slots serve windows of up to 31 days: a slot is
-- may be emptied (TRUNCATE) two days past the window, before its number comes
-- round; nothing does so yet.
-- All slots exist from the start, and there is no default partition: CREATE and
-- DETACH would wait behind open claims. Claims address the leaf (seen_5).
CREATE TABLE {{.schema}}.seen (
  slot      smallint NOT NULL,
  consumer  integer  NOT NULL, -- no foreign key: its check would lock the consumer's row in every transaction
  event_key uuid     NOT NULL,
  PRIMARY KEY (event_key, consumer, slot)
) PARTITION BY LIST (slot);

-- Claims of all other ids: slot = day of receipt % 34. Never by a time that the
-- event claims: with another time it would take effect twice.
CREATE TABLE {{.schema}}.seen_foreign (
  slot      smallint NOT NULL,
  consumer  integer  NOT NULL,
  event_key uuid     NOT NULL,
  PRIMARY KEY (event_key, consumer, slot)
) PARTITION BY LIST (slot);
{{range $slot := 34}}
CREATE TABLE {{$.schema}}.seen_{{$slot}} PARTITION OF {{$.schema}}.seen FOR VALUES IN ({{$slot}});
CREATE TABLE {{$.schema}}.seen_foreign_{{$slot}} PARTITION OF {{$.schema}}.seen_foreign FOR VALUES IN ({{$slot}});
{{- end}}

-- Events that were not handled, as they arrived. A text that Postgres cannot
-- store (a NUL, invalid UTF-8: binary keys have both) is written as \x and its
-- bytes in hex, and so is one that begins with \x.
CREATE TABLE {{.schema}}.dead (
  n                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order within a key
  consumer         integer     NOT NULL REFERENCES {{.schema}}.consumer (id),
  event_key        uuid        NOT NULL, -- identity, as in seen
  state            text        NOT NULL CONSTRAINT dead_state_known CHECK (state IN (
                     'dead',      -- waits for a person
                     'blocked',   -- waits behind an earlier event of its key
                     'moving',    -- as dead; a copy is on its way to the broker destination
                     'moved',     -- as dead; the broker has confirmed the copy
                     'retrying',  -- redriven: a running inbox of the consumer handles it at next_attempt_at
                     'redriven', 'discarded')), -- dealt with
  blocks           boolean     NOT NULL, -- later events of its topic and key wait
  reason           text        NOT NULL, -- a word: attempts, permanent, undecodable, …
  error            text        NOT NULL DEFAULT '', -- the last error
  attempts         integer     NOT NULL, -- of all rounds
  earlier_attempts integer     NOT NULL DEFAULT 0, -- those before the last redrive
  next_attempt_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  action           bigint,     -- {{.schema}}.dead_action.n: the last redrive or discard
  topic            text        NOT NULL,
  key              text        NOT NULL,
  key_hash         bigint      NOT NULL, -- first 8 bytes of SHA-256(topic, 0, key); 0 = no key
  id               text        NOT NULL,
  source           text        NOT NULL,
  type             text        NOT NULL,
  time             timestamptz,
  content_type     text        NOT NULL,
  correlation_id   text        NOT NULL,
  causation_id     text        NOT NULL,
  headers          jsonb       NOT NULL,
  payload          bytea,      -- bytes as received, frame included; NULL is a tombstone
  origin_broker    text        NOT NULL,
  origin_topic     text        NOT NULL,
  origin_partition integer     NOT NULL,
  origin_offset    bigint      NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Only over what is unresolved: an event that was dealt with may die again.
CREATE UNIQUE INDEX dead_event_key_idx ON {{.schema}}.dead (consumer, event_key)
  WHERE state IN ('dead', 'blocked', 'moving', 'moved', 'retrying');
CREATE INDEX dead_key_hash_idx ON {{.schema}}.dead (consumer, key_hash, n)
  WHERE state IN ('dead', 'blocked', 'moving', 'moved', 'retrying');
-- For people, who know the key alone. A hash, because a broker's key may be too long for an index.
CREATE INDEX dead_key_idx ON {{.schema}}.dead (hashtextextended(key, 0), n)
  WHERE state IN ('dead', 'blocked', 'moving', 'moved', 'retrying');
-- Looked at once a second by every inbox, and mostly empty.
CREATE INDEX dead_retrying_idx ON {{.schema}}.dead (consumer, key_hash, n) WHERE state = 'retrying';
CREATE INDEX dead_action_idx ON {{.schema}}.dead (action, state) WHERE action IS NOT NULL;

-- Who redrove or discarded what, and why.
CREATE TABLE {{.schema}}.dead_action (
  n      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  action text        NOT NULL CONSTRAINT dead_action_known CHECK (action IN ('redrive', 'discard')),
  actor  text        NOT NULL,
  role   text        NOT NULL DEFAULT current_user,
  reason text        NOT NULL CONSTRAINT dead_action_reason_not_empty CHECK (reason <> ''),
  filter jsonb       NOT NULL,
  events bigint      NOT NULL DEFAULT 0
);

---- create above / drop below ----

DROP TABLE {{.schema}}.dead, {{.schema}}.dead_action, {{.schema}}.seen_foreign, {{.schema}}.seen, {{.schema}}.consumer;
