-- The inbox: what a service has consumed, in its own database, beside the tables
-- that its handlers change. How it is used, and why: docs/architecture.md.

-- Who consumes. The short id keeps the rows of seen small.
CREATE TABLE {{.schema}}.consumer (
  id          integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name        text        NOT NULL UNIQUE CONSTRAINT consumer_name_not_empty CHECK (name <> ''),
  window_days smallint    NOT NULL CONSTRAINT consumer_window_days CHECK (window_days BETWEEN 1 AND 31), -- as configured at the latest start
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp() -- ids from long before count as foreign; never changed
);

-- Claims of events whose id tells their day: slot = day % 36, the day being that
-- of the UUIDv7 in UTC. A slot is emptied (forget_seen) two days past the widest
-- window, at most 31 days, before its number comes round.
-- All slots exist from the start, and there is no default partition: CREATE and
-- DETACH would wait behind open claims. Claims address the leaf (seen_5).
CREATE TABLE {{.schema}}.seen (
  slot      smallint NOT NULL,
  consumer  integer  NOT NULL, -- no foreign key: its check would lock the consumer's row in every transaction
  event_key uuid     NOT NULL,
  PRIMARY KEY (event_key, consumer, slot)
) PARTITION BY LIST (slot);

-- Claims of all other ids: slot = retention.foreign_turn % 36, about the day of
-- receipt. Never by a time that the event claims: with another time it would take
-- effect twice.
CREATE TABLE {{.schema}}.seen_foreign (
  slot      smallint NOT NULL,
  consumer  integer  NOT NULL,
  event_key uuid     NOT NULL,
  response  bytea,   -- what dedup.Store gives a duplicate; NULL for events
  PRIMARY KEY (event_key, consumer, slot)
) PARTITION BY LIST (slot);
{{range $slot := 36}}
CREATE TABLE {{$.schema}}.seen_{{$slot}} PARTITION OF {{$.schema}}.seen FOR VALUES IN ({{$slot}});
CREATE TABLE {{$.schema}}.seen_foreign_{{$slot}} PARTITION OF {{$.schema}}.seen_foreign FOR VALUES IN ({{$slot}});
{{- end}}

-- What has been forgotten. One row, which every claim reads; written about once a day.
CREATE TABLE {{.schema}}.retention (
  one          boolean     PRIMARY KEY DEFAULT true CONSTRAINT retention_one_row CHECK (one),
  forgotten    bigint      NOT NULL DEFAULT 0, -- seconds since 1970: claims of ids up to here may have been truncated
  foreign_turn bigint      NOT NULL DEFAULT 0, -- counts the slots that seen_foreign has filled
  turned_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO {{.schema}}.retention DEFAULT VALUES;

-- The time in an event_key, in seconds.
CREATE FUNCTION {{.schema}}.key_seconds(event_key uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('x' || translate(left(event_key::text, 13), '-', ''))::bit(48)::bigint / 1000
$$;

-- The two functions below empty a slot if that is due, and say whether they did.
-- They run with their owner's rights, so that consumers can forget what is due and
-- nothing else. NOWAIT, because a lock request that waits stalls every claim behind
-- it; who has no luck now has it later. Checked again under the lock, in a new
-- statement: a claim committed until then is seen, and no other can come.
CREATE FUNCTION {{.schema}}.forget_seen(slot integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  newest bigint; -- claim of the slot
  latest bigint; -- claim of all slots
  widest integer;
BEGIN
  FOR look IN 1..2 LOOP
    EXECUTE format('SELECT {{.schema}}.key_seconds(event_key) FROM {{.schema}}.seen_%s ORDER BY event_key DESC LIMIT 1', slot) INTO newest;
    IF newest IS NULL THEN
      RETURN false;
    END IF;
    SELECT {{.schema}}.key_seconds(event_key) INTO latest FROM {{.schema}}.seen ORDER BY event_key DESC LIMIT 1;
    SELECT coalesce(max(window_days), 31) INTO widest FROM {{.schema}}.consumer;
    -- The latest claim bears the clock out: one that was set days ahead makes nothing old.
    IF newest / 86400 + widest + 2 > least(latest, extract(epoch FROM clock_timestamp())::bigint) / 86400 THEN
      RETURN false;
    END IF;
    IF look = 1 THEN
      PERFORM FROM {{.schema}}.retention FOR UPDATE SKIP LOCKED; -- one at a time
      IF NOT FOUND THEN
        RETURN false;
      END IF;
      EXECUTE format('LOCK TABLE {{.schema}}.seen_%s IN ACCESS EXCLUSIVE MODE NOWAIT', slot);
    END IF;
  END LOOP;
  EXECUTE format('TRUNCATE {{.schema}}.seen_%s', slot);
  UPDATE {{.schema}}.retention SET forgotten = greatest(forgotten, newest);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END
$$;

-- Age is counted in turns, not in time: a clock that is set cannot make a slot old.
CREATE FUNCTION {{.schema}}.forget_foreign(slot integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  turn   bigint;
  widest integer;
  filled boolean;
BEGIN
  SELECT foreign_turn, (SELECT coalesce(max(window_days), 31) FROM {{.schema}}.consumer) INTO turn, widest FROM {{.schema}}.retention;
  -- The next slot (age 35) is empty, and looked into by claims.
  IF (turn % 36 + 36 - slot) % 36 NOT BETWEEN widest + 3 AND 34 THEN
    RETURN false;
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM {{.schema}}.seen_foreign_%s)', slot) INTO filled;
  IF NOT filled THEN
    RETURN false;
  END IF;
  PERFORM FROM {{.schema}}.retention WHERE foreign_turn = turn FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  EXECUTE format('LOCK TABLE {{.schema}}.seen_foreign_%s IN ACCESS EXCLUSIVE MODE NOWAIT', slot);
  EXECUTE format('TRUNCATE {{.schema}}.seen_foreign_%s', slot);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END
$$;

-- Moves foreign claims to the next slot once a day, if it and the one after it are
-- empty; otherwise the current one grows. Returns the turn.
CREATE FUNCTION {{.schema}}.turn_foreign() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  turn   bigint;
  filled boolean;
BEGIN
  SELECT foreign_turn INTO turn FROM {{.schema}}.retention;
  UPDATE {{.schema}}.retention SET turned_at = clock_timestamp()
    WHERE turned_at > clock_timestamp() + interval '1 minute'; -- the clock was set back
  PERFORM FROM {{.schema}}.retention WHERE turned_at <= clock_timestamp() - interval '1 day';
  IF NOT FOUND THEN
    RETURN turn;
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM {{.schema}}.seen_foreign_%s) OR EXISTS (SELECT FROM {{.schema}}.seen_foreign_%s)',
    (turn + 1) % 36, (turn + 2) % 36) INTO filled;
  UPDATE {{.schema}}.retention SET foreign_turn = foreign_turn + 1, turned_at = clock_timestamp()
    WHERE foreign_turn = turn AND turned_at <= clock_timestamp() - interval '1 day' AND NOT filled;
  RETURN (SELECT foreign_turn FROM {{.schema}}.retention);
END
$$;
REVOKE EXECUTE ON FUNCTION {{.schema}}.forget_seen(integer), {{.schema}}.forget_foreign(integer), {{.schema}}.turn_foreign() FROM PUBLIC;

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

-- Runs that have begun and not ended: live ones, and such as have died.
CREATE TABLE {{.schema}}.run (
  n          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer   integer     NOT NULL REFERENCES {{.schema}}.consumer (id),
  started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Attempts that have begun and not ended, of events that an earlier run may have
-- died of. Almost always empty.
CREATE TABLE {{.schema}}.begun (
  consumer  integer     NOT NULL,
  event_key uuid        NOT NULL,
  attempts  integer     NOT NULL DEFAULT 1,
  at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (consumer, event_key)
);

---- create above / drop below ----

DROP FUNCTION {{.schema}}.turn_foreign(), {{.schema}}.forget_foreign(integer), {{.schema}}.forget_seen(integer), {{.schema}}.key_seconds(uuid);
DROP TABLE {{.schema}}.retention;
DROP TABLE {{.schema}}.begun, {{.schema}}.run, {{.schema}}.dead, {{.schema}}.dead_action, {{.schema}}.seen_foreign, {{.schema}}.seen, {{.schema}}.consumer;
