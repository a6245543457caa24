CREATE TABLE deliveries (
  id       text PRIMARY KEY,
  state    text NOT NULL, -- created, in_transit, waiting, completed, cancelled
  drone_id text NOT NULL,
  reports  bigint NOT NULL DEFAULT 0 -- of drones, that were handled: a double would show
);
