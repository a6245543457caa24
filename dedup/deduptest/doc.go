// Package deduptest is the suite that every dedup.Store passes, yours too:
//
//	func TestMyStore(t *testing.T) {
//		deduptest.Run(t, func(t testing.TB, concurrent dedup.Concurrent) deduptest.Begin {
//			store := newMyStore(t, concurrent)
//			return func(context.Context) (dedup.Store, func(commit bool) error, error) {
//				return store, func(bool) error { return nil }, nil // it needs no transaction
//			}
//		})
//	}
package deduptest
