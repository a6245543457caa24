-- name: CreateOrder :exec
INSERT INTO orders (id, user_id) VALUES ($1, $2);
