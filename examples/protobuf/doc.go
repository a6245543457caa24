// Package protobuf adds Protobuf as a format of events, in one file and without
// a change anywhere else: see [New].
//
//	protoc --go_out=. --go_opt=paths=source_relative order.proto
package protobuf
