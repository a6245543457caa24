-- No unique order_id: if an order took effect twice, it should show.
CREATE TABLE messages (
  n        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  order_id bigint NOT NULL,
  user_id  text   NOT NULL,
  body     text   NOT NULL,
  event_id text   NOT NULL
);
