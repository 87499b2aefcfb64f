// Package arch holds the rules of this code base that a machine can hold: who
// may import whom, what only main may do, and the budgets of files and
// functions. Its tests read the source of the whole module.
package arch
