/* What a stack counts, by the names of SNMP's MIBs as Linux's nstat shows them (RFC 4293, 4022, 4113; TcpExt is Linux's
 * own). One list makes the enum and the names. */
#ifndef LIBOS_COUNTERS_H
#define LIBOS_COUNTERS_H

#define COUNTERS(X)                                                                                                    \
    X(EthInErrors) /* too short, or of a type that is not spoken here */                                               \
    X(ArpInErrors)                                                                                                     \
    X(NeighFailed) /* packets given up because their next hop did not answer */                                        \
    X(IpInReceives)                                                                                                    \
    X(IpInHdrErrors)                                                                                                   \
    X(IpInAddrErrors)                                                                                                  \
    X(IpInUnknownProtos)                                                                                               \
    X(IpInDelivers)                                                                                                    \
    X(IpOutRequests)                                                                                                   \
    X(IpOutNoRoutes)                                                                                                   \
    X(IpReasmFails) /* fragments: not put together yet, dropped */                                                     \
    X(Ip6InReceives)                                                                                                   \
    X(Ip6InHdrErrors)                                                                                                  \
    X(Ip6InAddrErrors)                                                                                                 \
    X(Ip6InUnknownProtos)                                                                                              \
    X(Ip6InDelivers)                                                                                                   \
    X(Ip6OutRequests)                                                                                                  \
    X(Ip6OutNoRoutes)                                                                                                  \
    X(Ip6ReasmFails)                                                                                                   \
    X(IcmpInMsgs)                                                                                                      \
    X(IcmpInErrors)                                                                                                    \
    X(IcmpInCsumErrors)                                                                                                \
    X(IcmpOutMsgs)                                                                                                     \
    X(IcmpOutRateLimited)                                                                                              \
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
    X(TcpExtListenOverflows)                                                                                           \
    X(TcpExtPAWSEstab)                                                                                                 \
    X(TcpExtTCPChallengeACK)                                                                                           \
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
    X(TcpExtTCPDSACKOldSent)                                                                                           \
    X(TcpExtTCPDSACKOfoSent)                                                                                           \
    X(TcpExtTCPTimeouts)                                                                                               \
    X(TcpExtTCPWinProbe)                                                                                               \
    X(TcpExtTCPKeepAlive)                                                                                              \
    X(TcpExtDelayedACKs)                                                                                               \
    X(TcpExtTW)                                                                                                        \
    X(TcpExtTCPTimeWaitOverflow)                                                                                       \
    X(TcpExtTCPAbortOnData)                                                                                            \
    X(TcpExtTCPAbortOnTimeout)                                                                                         \
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
