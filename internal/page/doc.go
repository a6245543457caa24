// Package page is the web page of "relay run": how events flow through the
// pipelines, backlog and rates over time, shards and owners, circuits, dead letters
// with their payloads, one event's story, and the commands to act.
//
// The page changes nothing: it answers GET and HEAD only, and asks for nothing but
// what it shows. Its assets are embedded and it loads nothing from elsewhere; its
// Content-Security-Policy allows no inline code, and no text becomes markup. It polls:
// an answer that ends passes every proxy and time limit, and a browser that has gone
// costs nothing.
//
// Memory is bounded: an hour of history for each pipeline, [PageSize] dead letters for
// each request, payloads cut at [PayloadShown], and four requests and four samples at
// work in databases.
package page
