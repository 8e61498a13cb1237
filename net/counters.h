/* What a stack counts, by the names of SNMP's MIBs as Linux's nstat shows them (RFC 4293, 4022, 4113; TcpExt is Linux's
 * own). Udp* and Icmp* count both families, where Linux has Udp6* and Icmp6* besides. One list makes the enum and the
 * names; tests/stack/test_counters.py holds them to the kernel's, and lists those of our own with the reason. */
#ifndef LIBOS_COUNTERS_H
#define LIBOS_COUNTERS_H

#define COUNTERS(X)                                                                                                    \
    X(EthInErrors) /* too short, or of a type that is not spoken here */                                               \
    X(EthInUnknownVlans)                                                                                               \
    X(ArpInErrors)                                                                                                     \
    X(NeighFailed) /* packets given up because their next hop did not answer */                                        \
    X(NeighTableFull) /* neighbours not noted, packets dropped: all entries are in use */                              \
    X(AddressConflicts) /* somebody else used, or asked for, an address of ours */                                     \
    X(RouterInfoDropped) /* what routers said, and there is no room for */                                             \
    X(IpInReceives)                                                                                                    \
    X(IpInHdrErrors)                                                                                                   \
    X(IpInAddrErrors)                                                                                                  \
    X(IpInUnknownProtos)                                                                                               \
    X(IpInDelivers)                                                                                                    \
    X(IpForwDatagrams)                                                                                                 \
    X(IpExtInNoRoutes) /* for others, and there is no way to them */                                                   \
    X(IpOutRequests)                                                                                                   \
    X(IpOutNoRoutes)                                                                                                   \
    X(IpReasmReqds)                                                                                                    \
    X(IpReasmOKs)                                                                                                      \
    X(IpReasmFails)                                                                                                    \
    X(IpReasmTimeout)                                                                                                  \
    X(IpFragOKs)                                                                                                       \
    X(IpFragFails)                                                                                                     \
    X(IpFragCreates)                                                                                                   \
    X(IpExtReasmOverlaps) /* datagrams of either family: fragments that overlap, or are too many */                    \
    X(Ip6InReceives)                                                                                                   \
    X(Ip6InHdrErrors)                                                                                                  \
    X(Ip6InAddrErrors)                                                                                                 \
    X(Ip6InUnknownProtos)                                                                                              \
    X(Ip6InDelivers)                                                                                                   \
    X(Ip6InNoRoutes)                                                                                                   \
    X(Ip6InTooBigErrors) /* for others, and larger than the way there takes */                                         \
    X(Ip6OutForwDatagrams)                                                                                             \
    X(Ip6OutRequests)                                                                                                  \
    X(Ip6OutNoRoutes)                                                                                                  \
    X(Ip6ReasmReqds)                                                                                                   \
    X(Ip6ReasmOKs)                                                                                                     \
    X(Ip6ReasmFails)                                                                                                   \
    X(Ip6ReasmTimeout)                                                                                                 \
    X(Ip6FragOKs)                                                                                                      \
    X(Ip6FragFails)                                                                                                    \
    X(Ip6FragCreates)                                                                                                  \
    X(IcmpInMsgs)                                                                                                      \
    X(IcmpInErrors)                                                                                                    \
    X(IcmpInCsumErrors)                                                                                                \
    X(IcmpOutMsgs)                                                                                                     \
    X(IgmpInMsgs) /* RFC 5519 */                                                                                       \
    X(IgmpInErrors)                                                                                                    \
    X(IgmpOutMsgs)                                                                                                     \
    X(IcmpInRedirects) /* of both families, as all of ICMP here */                                                     \
    X(IcmpOutRateLimitGlobal)                                                                                          \
    X(IcmpOutRateLimitHost)                                                                                            \
    X(UdpInDatagrams)                                                                                                  \
    X(UdpNoPorts)                                                                                                      \
    X(UdpInErrors)                                                                                                     \
    X(UdpInCsumErrors)                                                                                                 \
    X(UdpRcvbufErrors)                                                                                                 \
    X(UdpOutDatagrams)                                                                                                 \
    X(TcpActiveOpens)                                                                                                  \
    X(TcpPassiveOpens)                                                                                                 \
    X(TcpAttemptFails)                                                                                                 \
    X(TcpEstabResets)                                                                                                  \
    X(TcpCurrEstab)                                                                                                    \
    X(TcpInSegs)                                                                                                       \
    X(TcpOutSegs)                                                                                                      \
    X(TcpRetransSegs)                                                                                                  \
    X(TcpInErrs)                                                                                                       \
    X(TcpInCsumErrors)                                                                                                 \
    X(TcpOutRsts)                                                                                                      \
    X(TcpExtSyncookiesSent)                                                                                            \
    X(TcpExtSyncookiesRecv)                                                                                            \
    X(TcpExtSyncookiesFailed)                                                                                          \
    X(TcpExtListenOverflows) /* there was no place in an accept queue */                                               \
    X(TcpExtListenDrops)     /* a SYN, or the ACK of ours, was dropped for that or another reason */                   \
    X(TcpExtTCPDeferAcceptDrop)                                                                                        \
    X(TcpExtTCPFastOpenActive)                                                                                         \
    X(TcpExtTCPFastOpenActiveFail)                                                                                     \
    X(TcpExtTCPFastOpenPassive)                                                                                        \
    X(TcpExtTCPFastOpenPassiveFail)                                                                                    \
    X(TcpExtTCPFastOpenListenOverflow)                                                                                 \
    X(TcpExtTCPFastOpenCookieReqd)                                                                                     \
    X(TcpExtPAWSEstab)                                                                                                 \
    X(TcpExtTCPChallengeACK)                                                                                           \
    X(TcpExtTCPACKSkippedChallenge) /* not sent, for one was just now */                                               \
    X(TcpExtTCPACKSkippedSeq)                                                                                          \
    X(TcpExtTCPOFOQueue)                                                                                               \
    X(TcpExtTCPOFODrop)                                                                                                \
    X(TcpExtOfoPruned) /* times that bytes out of order were given up for want of memory */                            \
    X(TcpExtTCPMTUPSuccess)                                                                                            \
    X(TcpExtTCPMTUPFail)                                                                                               \
    X(TcpExtTCPBlackHole) /* connections that went on with smaller segments after time-outs */                         \
    X(IpExtPathMtuEvicted) /* known path MTUs that made place for others */                                            \
    X(TcpExtTCPRcvQDrop)                                                                                               \
    X(TcpExtTCPFastRetrans)                                                                                            \
    X(TcpExtTCPSackRecovery)                                                                                           \
    X(TcpExtTCPRenoRecovery)                                                                                           \
    X(TcpExtTCPSACKReneging)                                                                                           \
    X(TcpExtTCPSACKReorder)                                                                                            \
    X(TcpExtTCPLostRetransmit)                                                                                         \
    X(TcpExtTCPLossProbes)                                                                                             \
    X(TcpExtTCPLossProbeRecovery)                                                                                      \
    X(TcpExtTCPFullUndo)                                                                                               \
    X(TcpExtTCPLossUndo)                                                                                               \
    X(TcpExtTCPDSACKUndo)                                                                                              \
    X(TcpExtTCPSpuriousRTOs)                                                                                           \
    X(TcpExtTCPDSACKRecv)                                                                                              \
    X(TcpExtTCPDSACKIgnoredDubious)                                                                                    \
    X(TcpExtTCPDSACKOldSent)                                                                                           \
    X(TcpExtTCPDSACKOfoSent)                                                                                           \
    X(TcpExtTCPSynRetrans)                                                                                             \
    X(TcpExtTCPOrigDataSent)                                                                                           \
    X(TcpExtTCPTimeouts)                                                                                               \
    X(TcpExtTCPWinProbe)                                                                                               \
    X(TcpExtTCPKeepAlive)                                                                                              \
    X(TcpExtTCPDeliveredCE) /* segments acknowledged with ECE */                                                       \
    X(TcpExtDelayedACKs)                                                                                               \
    X(TcpExtTW)                                                                                                        \
    X(TcpExtTWRecycled) /* a TIME-WAIT cut short for a new connection (RFC 6191) */                                    \
    X(TcpExtTCPTimeWaitOverflow)                                                                                       \
    X(TcpExtTCPAbortOnData)                                                                                            \
    X(TcpExtTCPAbortOnTimeout)                                                                                         \
    X(TcpExtTCPAbortOnLinger)                                                                                          \
    X(TcpExtTCPAbortOnMemory) /* too many that nobody owns */                                                          \
    X(TcpExtTCPMemoryPressures)                                                                                        \
    X(TcpInBytes)                                                                                                      \
    X(TcpOutBytes)

enum counter {
#define COUNTER(name) C_##name,
    COUNTERS(COUNTER)
#undef COUNTER
        COUNTER_COUNT
};

#endif
