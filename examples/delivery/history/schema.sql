-- What happened to each delivery. No unique event_id: if an event took effect
-- twice, it should show.
CREATE TABLE history (
  n           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  delivery_id text        NOT NULL,
  what        text        NOT NULL,
  detail      text        NOT NULL,
  event_id    text        NOT NULL,
  caused_by   text        NOT NULL, -- id of the drone's report
  request     text        NOT NULL, -- of the customer
  happened_at timestamptz NOT NULL
);

-- The read model: one row for the customer's question "where is it?".
CREATE TABLE delivery_view (
  delivery_id text PRIMARY KEY,
  state       text   NOT NULL,
  drone_id    text   NOT NULL,
  arrives_at  timestamptz,
  changes     bigint NOT NULL
);
