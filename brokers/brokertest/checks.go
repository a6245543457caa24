package brokertest

func servingChecks() []check { return nil }

func restartChecks() []check { return nil }
