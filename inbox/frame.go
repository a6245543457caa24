package inbox

import "bytes"

// frameHint says so when bytes that do not decode as bare ones look framed:
// without Config.Wire, all of a topic would become dead letters one by one.
func frameHint(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte{0xC3, 0x01}):
		return " (the bytes begin like Avro's single-object encoding, and Config.Wire is not set)"
	case len(data) >= 5 && data[0] == 0:
		return " (the bytes begin like a schema registry's frame, and Config.Wire is not set)"
	}
	return ""
}
