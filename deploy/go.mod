module github.com/outboxkit/outboxkit/deploy

go 1.26.0
