// Package schema says whether a schema may follow another, and where schemas live.
//
// A [Registry] knows the versions of a subject and the [Mode] by which they may
// change. There are two: registry.Client asks a Confluent-compatible server, and
// avro.Files reads a folder or embedded files. [Check] gives the verdict of
// either, with the rule that a change breaks and its place:
//
//	field `items[].qty`: added without default breaks BACKWARD
//
// The rules themselves belong to a format and come in as a [Compare] function,
// such as avro.Compare: this package imports no codec, so that what only frames
// messages need not either.
package schema
