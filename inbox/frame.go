package inbox

import "bytes"

// frameHint says so when bytes that do not decode as bare ones look framed:
// without Config.Wire, all of a topic would become dead letters one by one. It
// stands in front, where lists of dead letters show it.
func frameHint(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte{0xC3, 0x01}):
		return "Config.Wire is not set, but the bytes begin like Avro's single-object encoding: "
	case len(data) >= 5 && data[0] == 0:
		return "Config.Wire is not set, but the bytes begin like a schema registry's frame: "
	}
	return ""
}
