-- The outbox: an append-only log of events in the service's own database.
-- How it is read, and why each default is as it is: docs/architecture.md.

-- Sequences. CACHE 1 (the default) is required: a cached range would let a later
-- transaction draw a lower id. Both are called once here because
-- pg_sequence_last_value answers NULL for a sequence that was never used.
CREATE SEQUENCE {{.schema}}.event_id_seq CACHE 1;
CREATE SEQUENCE {{.schema}}.slot_seq CACHE 1;
SELECT nextval('{{.schema}}.event_id_seq'), nextval('{{.schema}}.slot_seq');

-- A time-ordered UUID (RFC 9562, version 7) for plain INSERTs from any language.
CREATE FUNCTION {{.schema}}.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
    substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- The part of the log that an event belongs to. Unkeyed events have no order: they
-- spread over all shards. Computed when it is read: as a generated column it made an
-- INSERT a third dearer, because Postgres parses such a column's expression anew for
-- each statement. hashtextextended may change between major versions; nothing durable
-- depends on it, because a changed cluster is refused until "relay rebase".
CREATE FUNCTION {{.schema}}.shard(key text, event_id uuid) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ((CASE WHEN key = '' THEN uuid_hash_extended(event_id, 0) ELSE hashtextextended(key, 0) END) & 63)::smallint
$$;

-- What a column must be. Domains and not CHECK constraints, because Postgres keeps
-- a domain's expression for the session and parses a table's anew for each statement.
CREATE DOMAIN {{.schema}}.event_id AS uuid CONSTRAINT event_id_is_uuid_v7 CHECK (get_byte(uuid_send(VALUE), 6) >> 4 = 7);
CREATE DOMAIN {{.schema}}.event_topic AS text CONSTRAINT event_topic_not_empty CHECK (VALUE <> '');
CREATE DOMAIN {{.schema}}.event_type AS text CONSTRAINT event_type_not_empty CHECK (VALUE <> '');
CREATE DOMAIN {{.schema}}.event_source AS text CONSTRAINT event_source_not_empty CHECK (VALUE <> '');
CREATE DOMAIN {{.schema}}.event_headers AS jsonb CONSTRAINT event_headers_is_object CHECK (jsonb_typeof(VALUE) = 'object');

CREATE TABLE {{.schema}}.event (
  -- Never set by writers (see the grants): the transaction, and the place in the log.
  xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
  -- The CASE makes the id depend on the xid, so that a transaction owns its xid
  -- before it draws its first id. Reading depends on that order.
  id             bigint      NOT NULL DEFAULT nextval(CASE WHEN pg_current_xact_id() IS NOT NULL THEN '{{.schema}}.event_id_seq'::regclass END),
  slot           smallint    NOT NULL DEFAULT (pg_sequence_last_value('{{.schema}}.slot_seq'::regclass) & 7),
  -- Identity for ever: (source, event_id).
  event_id       {{.schema}}.event_id NOT NULL DEFAULT {{.schema}}.uuid_v7(),
  topic          {{.schema}}.event_topic NOT NULL,
  key            text        NOT NULL DEFAULT '',
  type           {{.schema}}.event_type NOT NULL,
  source         {{.schema}}.event_source NOT NULL,
  time           timestamptz, -- when it happened; NULL = created_at
  content_type   text,        -- media type of the bare payload; NULL = the schema's, or application/json
  correlation_id text,
  causation_id   text,
  headers        {{.schema}}.event_headers,
  payload        bytea,       -- NULL is a tombstone, '' is empty
  schema_fp      bigint,      -- {{.schema}}.schema.fp; NULL = no schema
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);
CREATE TABLE {{.schema}}.event_0 PARTITION OF {{.schema}}.event FOR VALUES IN (0);
CREATE TABLE {{.schema}}.event_1 PARTITION OF {{.schema}}.event FOR VALUES IN (1);
CREATE TABLE {{.schema}}.event_2 PARTITION OF {{.schema}}.event FOR VALUES IN (2);
CREATE TABLE {{.schema}}.event_3 PARTITION OF {{.schema}}.event FOR VALUES IN (3);
CREATE TABLE {{.schema}}.event_4 PARTITION OF {{.schema}}.event FOR VALUES IN (4);
CREATE TABLE {{.schema}}.event_5 PARTITION OF {{.schema}}.event FOR VALUES IN (5);
CREATE TABLE {{.schema}}.event_6 PARTITION OF {{.schema}}.event FOR VALUES IN (6);
CREATE TABLE {{.schema}}.event_7 PARTITION OF {{.schema}}.event FOR VALUES IN (7);
CREATE UNIQUE INDEX event_id_slot_idx ON {{.schema}}.event (id, slot);
CREATE INDEX event_xid_id_idx ON {{.schema}}.event (xid, id);

-- Schemas of the payloads, stored once each by outbox.New.
CREATE TABLE {{.schema}}.schema (
  fp           bigint      PRIMARY KEY,
  format       text        NOT NULL,
  text         text        NOT NULL,
  content_type text        NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which cluster and database this log belongs to. A dump restored elsewhere has
-- other transaction ids: the relay refuses it until "relay rebase".
CREATE TABLE {{.schema}}.meta (
  one               boolean PRIMARY KEY DEFAULT true CHECK (one),
  shards            integer NOT NULL,
  system_identifier bigint  NOT NULL,
  database_oid      oid     NOT NULL
);
INSERT INTO {{.schema}}.meta (shards, system_identifier, database_oid)
  SELECT 64, c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();

-- Emptied by crash recovery and by promotion, because it is UNLOGGED: its token
-- tells the relay that transaction ids may have been used again.
CREATE UNLOGGED TABLE {{.schema}}.incarnation (
  one   boolean PRIMARY KEY DEFAULT true CHECK (one),
  token uuid    NOT NULL DEFAULT gen_random_uuid()
);

-- One row per pipeline; registered before its first probe.
CREATE TABLE {{.schema}}.pipeline (
  name       text        PRIMARY KEY CONSTRAINT pipeline_name_not_empty CHECK (name <> ''),
  filter     jsonb       NOT NULL DEFAULT '{}', -- what it publishes: the same in every relay; {} = all
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One heartbeat row per relay instance.
CREATE TABLE {{.schema}}.instance (
  name       text        PRIMARY KEY,
  pipelines  text[]      NOT NULL DEFAULT '{}', -- runs these; empty while it stops
  report     jsonb       NOT NULL DEFAULT '{}', -- rate and open circuits by pipeline, at the last heartbeat
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at    timestamptz NOT NULL DEFAULT clock_timestamp(), -- last heartbeat
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Who may publish a shard. Changes only with ownership.
CREATE TABLE {{.schema}}.lease (
  pipeline text     NOT NULL REFERENCES {{.schema}}.pipeline (name) ON DELETE CASCADE,
  shard    smallint NOT NULL,
  owner    text     NOT NULL DEFAULT '', -- '' = nobody
  epoch    bigint   NOT NULL DEFAULT 0,
  PRIMARY KEY (pipeline, shard)
);

-- How far each shard has been published: appended, the latest row of a shard wins.
CREATE TABLE {{.schema}}.position (
  n        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pipeline text        NOT NULL,
  shards   smallint[]  NOT NULL,
  owner    text        NOT NULL,
  s        pg_snapshot NOT NULL, -- passed: id <= h and visible in s
  h        bigint      NOT NULL,
  b        xid8        NOT NULL, -- next unassigned xid when s was taken
  s2       pg_snapshot,          -- batch under way: the same three, and the cursor
  h2       bigint,
  b2       xid8,
  c        bigint      NOT NULL DEFAULT 0,
  at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX position_pipeline_n_idx ON {{.schema}}.position (pipeline, n);

-- Events that a pipeline could not publish, each a full copy: the log is truncated.
-- A published one is deleted here.
CREATE TABLE {{.schema}}.parked (
  n               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order within a key
  pipeline        text        NOT NULL REFERENCES {{.schema}}.pipeline (name) ON DELETE CASCADE,
  event_id        uuid        NOT NULL,
  shard           smallint    NOT NULL GENERATED ALWAYS AS ({{.schema}}.shard(key, event_id)) STORED,
  topic           text        NOT NULL,
  destination     text        NOT NULL, -- the topic at the broker, when it was parked
  key             text        NOT NULL,
  type            text        NOT NULL,
  source          text        NOT NULL,
  time            timestamptz NOT NULL,
  content_type    text,
  correlation_id  text,
  causation_id    text,
  headers         jsonb,
  payload         bytea,
  schema_fp       bigint,
  state           text        NOT NULL CONSTRAINT parked_state_known CHECK (state IN (
                    'retrying',    -- tried again at next_attempt_at
                    'blocked',     -- waits behind an earlier event of its destination and key
                    'dead',        -- waits for a person
                    'discarded')), -- dealt with; kept for the retention
  blocks          boolean     NOT NULL, -- later events of its destination and key wait
  class           text        NOT NULL DEFAULT '', -- of the last failure: destination, rejected, unavailable
  reason          text        NOT NULL DEFAULT '', -- the last failure's text
  attempts        integer     NOT NULL DEFAULT 0, -- since it was parked or redriven
  earlier_attempts integer    NOT NULL DEFAULT 0, -- before the last redrive
  next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  retry_since     timestamptz NOT NULL DEFAULT clock_timestamp(), -- its age counts from here: parked, or redriven
  parked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  action          bigint,     -- {{.schema}}.parked_action.n: the last redrive or discard
  claim           bigint,     -- the lease's epoch under which it is being published; NULL = by nobody
  unanswered      boolean     NOT NULL DEFAULT false -- an attempt ended without an answer: it may have been published
);
CREATE UNIQUE INDEX parked_event_idx ON {{.schema}}.parked (pipeline, event_id, source) WHERE state <> 'discarded';
CREATE INDEX parked_lane_idx ON {{.schema}}.parked (pipeline, destination, key, n) WHERE blocks;
CREATE INDEX parked_action_idx ON {{.schema}}.parked (action) WHERE state = 'discarded';
CREATE INDEX parked_redriven_idx ON {{.schema}}.parked (action) WHERE action IS NOT NULL AND state <> 'discarded';
-- For people, who know the key alone.
CREATE INDEX parked_key_idx ON {{.schema}}.parked (hashtextextended(key, 0), n);
CREATE INDEX parked_due_idx ON {{.schema}}.parked (pipeline, destination, next_attempt_at) WHERE state = 'retrying';

-- Who redrove or discarded what, and why.
CREATE TABLE {{.schema}}.parked_action (
  n        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  action   text        NOT NULL CONSTRAINT parked_action_known CHECK (action IN ('redrive', 'discard')),
  actor    text        NOT NULL,
  role     text        NOT NULL DEFAULT current_user,
  reason   text        NOT NULL CONSTRAINT parked_action_reason_not_empty CHECK (reason <> ''),
  filter   jsonb       NOT NULL,
  events   bigint      NOT NULL DEFAULT 0
);

-- Found again by replays, which leave them out.
CREATE INDEX parked_discarded_idx ON {{.schema}}.parked (pipeline, event_id) WHERE state = 'discarded';

-- Replays: what was asked for, by whom, what may be published, how far it came. The
-- last thousand are kept.
CREATE TABLE {{.schema}}.replay (
  id           uuid        PRIMARY KEY DEFAULT {{.schema}}.uuid_v7(),
  pipeline     text        NOT NULL,
  destination  text        NOT NULL, -- a pipeline's name
  filter       jsonb       NOT NULL,
  slots        jsonb       NOT NULL, -- each slot's first and last event when it began
  bound        jsonb       NOT NULL, -- what the destination had passed when it began, per shard
  first        bigint      NOT NULL, -- ids first < id <= last
  last         bigint      NOT NULL,
  cursor       bigint      NOT NULL, -- published up to this id
  published    bigint      NOT NULL DEFAULT 0,
  refused      jsonb       NOT NULL DEFAULT '[]', -- events that can never be published there, with the reasons
  held         bigint      NOT NULL DEFAULT 0, -- later events of their keys
  state        text        NOT NULL DEFAULT 'running'
                           CONSTRAINT replay_state_known CHECK (state IN ('running', 'stopped', 'truncated', 'done')),
  error        text        NOT NULL DEFAULT '',
  runner       text        NOT NULL, -- changes when it is resumed: fences the process before
  requested_by text        NOT NULL,
  role         text        NOT NULL DEFAULT current_user,
  reason       text        NOT NULL CONSTRAINT replay_reason_not_empty CHECK (reason <> ''),
  started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

---- create above / drop below ----

DROP TABLE {{.schema}}.replay, {{.schema}}.parked, {{.schema}}.parked_action, {{.schema}}.position, {{.schema}}.lease, {{.schema}}.instance, {{.schema}}.pipeline,
  {{.schema}}.incarnation, {{.schema}}.meta, {{.schema}}.schema, {{.schema}}.event;
DROP FUNCTION {{.schema}}.shard(text, uuid), {{.schema}}.uuid_v7();
DROP DOMAIN {{.schema}}.event_id, {{.schema}}.event_topic, {{.schema}}.event_type, {{.schema}}.event_source, {{.schema}}.event_headers;
DROP SEQUENCE {{.schema}}.slot_seq, {{.schema}}.event_id_seq;
