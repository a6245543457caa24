// Plots draws docs/figures/*.svg from lines that `JSON=1 make bench-effect`
// printed.
//
//	JSON=1 make bench-effect >docs/figures/effect.jsonl
//	make plots
package main
