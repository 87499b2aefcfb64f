// Package protocols lets the official Python clients of the Responses and the
// Messages protocol talk to a served engine whose every word is scripted.
package protocols
