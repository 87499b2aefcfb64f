// Package externalscaler is the wire of KEDA's external scalers, generated from
// externalscaler.proto, a copy of KEDA's own. KEDA's Go package would bring its
// whole module graph along.
//
// To generate it again, with protoc on the PATH (PyPI's grpcio-tools has one as
// python -m grpc_tools.protoc):
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//	go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
//	protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative externalscaler.proto
package externalscaler
