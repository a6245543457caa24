-- No unique order_id: if an order took effect twice, it should show.
CREATE TABLE reservations (
  n        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  order_id bigint NOT NULL,
  user_id  text   NOT NULL,
  items    text[] NOT NULL
);
