// Package scripts tests the shell scripts that fetch and check, without the
// network: wheels are made here and found in a folder.
package scripts
