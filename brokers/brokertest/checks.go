package brokertest

// servingChecks run in parallel on one server.
func servingChecks() []check {
	return []check{
		{name: "fields_arrive_as_sent", run: checkFields},
		{name: "order_per_key_in_one_call", run: checkOrderInOneCall},
		{name: "order_per_key_over_many_calls", run: checkOrderOverCalls},
		{name: "failed_event_holds_its_key_back", run: checkHeld},
		{name: "neighbours_of_oversize_events", run: checkNeighbours},
		{name: "unknown_topic_harms_nobody_else", run: checkUnknownTopic},
		{name: "unroutable_is_noticed_every_time", needs: "Unroutable", run: checkUnroutable},
		{name: "publish_with_a_context_that_ends", run: checkPublishContext},
		{name: "close_while_publishing", run: checkClosePublisher},
		{name: "close_while_subscribed", run: checkCloseSubscriber},
		{name: "unsettled_comes_again", run: checkUnsettled},
		{name: "leaving_waits_for_what_is_running", run: checkDrain},
		{name: "release_brings_it_back_in_order", run: checkRelease},
		{name: "handover_under_load", run: checkHandover},
		{name: "blocked_handle_blocks_its_unit_only", run: checkBackpressure},
		{name: "blocked_handle_bounds_what_is_buffered", needs: "Ahead", run: checkAhead},
	}
}

// restartChecks stop the server and run alone.
func restartChecks() []check {
	return []check{
		{name: "nothing_lost_over_a_restart", needs: "Stop", run: checkRestart},
		{name: "publish_while_the_server_is_away", needs: "Stop", run: checkServerAway},
		{name: "unsettled_survives_a_restart", needs: "Stop", run: checkUnsettledRestart},
		{name: "ack_of_an_older_connection", needs: "Stop", run: checkStaleAck},
	}
}
