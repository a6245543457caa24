// Package archtest holds the tests of who may import whom: see the table in
// docs/architecture.md.
package archtest
