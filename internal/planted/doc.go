// Package planted holds the mistakes that the fault suite must find: its own test.
// Each is a line at the place in the product's code where somebody could make it,
//
//	if planted.Is(planted.NoReturnListener) { … }
//
// In a normal build [Is] is constant and the compiler drops all of it (a test looks
// into the binary). With the build tag "planted" the environment variable
// OUTBOXKIT_PLANT names the one bug of a process; empty is none.
package planted
