package brokers

// TraceID returns the id of the trace that the message belongs to, as its
// traceparent header names it (W3C Trace Context): 32 hexadecimal digits. It is ""
// where there is no such header, or one that is not well formed. It is for logs: a
// line that has it leads to the request that wrote the event.
func (m *Message) TraceID() string {
	// version-trace-parent-flags: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
	p := m.Headers["traceparent"]
	if len(p) < 55 || p[2] != '-' || p[35] != '-' || p[52] != '-' {
		return ""
	}
	id, zero := p[3:35], true
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
		zero = zero && c == '0'
	}
	if zero { // says that there is none
		return ""
	}
	return id
}
