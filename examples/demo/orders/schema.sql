CREATE TABLE users (id text PRIMARY KEY);
CREATE TABLE orders (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id text   NOT NULL REFERENCES users (id),
  items   text[] NOT NULL
);
