// Package simulate replays traffic through a fleet of replicas and a scaling
// rule, on KEDA's clock, so that a rule can be judged before it is deployed.
//
// Time moves in ticks. What happens in one tick has its order: replicas become
// ready or end, answers end, requests arrive, the metrics are scraped, KEDA and
// the HPA look. A request waits in the queue of its replica, chosen as the less
// loaded of two by chance, which is what least-request balancing does; while no
// replica is ready it waits at the door.
package simulate
