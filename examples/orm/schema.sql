-- The shop's own tables. The foreign key is checked at COMMIT, which gives the
-- test a transaction that fails after everything has been written.
CREATE TABLE users (id text PRIMARY KEY);
CREATE TABLE orders (
  id      text PRIMARY KEY,
  user_id text NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED
);
