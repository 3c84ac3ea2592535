//! The shapes of the control-plane responses Strait reads, after Kafka's message definitions
//! (`clients/src/main/resources/common/message/*Response.json`).

use crate::shape::Kind::{Blob, Fixed, Ints, List, Tag, Text, Texts};
use crate::shape::{Shape, all, between, since};

pub(crate) static METADATA: Shape = Shape {
    flexible: 9,
    fields: &[
        since(3, Fixed(4)), // throttle time
        all(List(&[
            all(Fixed(4)),  // node id
            all(Text),      // host
            all(Fixed(4)),  // port
            since(1, Text), // rack
        ])),
        since(2, Text),     // cluster id
        since(1, Fixed(4)), // controller
        all(List(&[
            all(Fixed(2)),        // error
            all(Text),            // name
            since(10, Fixed(16)), // topic id
            since(1, Fixed(1)),   // internal
            all(List(&[
                all(Fixed(2 + 4 + 4)), // error, partition, leader
                since(7, Fixed(4)),    // leader epoch
                all(Ints(4)),          // replicas
                all(Ints(4)),          // in sync
                since(5, Ints(4)),     // offline
            ])),
            since(8, Fixed(4)), // authorized operations
        ])),
        between(Fixed(4), 8, 10), // authorized operations of the cluster
        since(13, Fixed(2)),      // error
    ],
};

pub(crate) static LIST_OFFSETS: Shape = Shape {
    flexible: 6,
    fields: &[
        since(2, Fixed(4)),
        all(List(&[
            all(Text),
            all(List(&[
                all(Fixed(4 + 2 + 8 + 8)), // partition, error, timestamp, offset
                since(4, Fixed(4)),        // leader epoch
            ])),
        ])),
    ],
};

pub(crate) static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    flexible: 4,
    fields: &[
        since(2, Fixed(4)),
        all(List(&[
            all(Text),
            all(List(&[all(Fixed(2 + 4 + 4 + 8))])), // error, partition, epoch, end offset
        ])),
    ],
};

pub(crate) static FIND_COORDINATOR: Shape = Shape {
    flexible: 3,
    fields: &[
        since(1, Fixed(4)),
        between(Fixed(2), 0, 3), // error
        between(Text, 1, 3),     // message
        between(Fixed(4), 0, 3), // node id
        between(Text, 0, 3),     // host
        between(Fixed(4), 0, 3), // port
        since(
            4,
            List(&[
                all(Text),         // key
                all(Fixed(4)),     // node id
                all(Text),         // host
                all(Fixed(4 + 2)), // port, error
                all(Text),         // message
            ]),
        ),
    ],
};

pub(crate) static CREATE_TOPICS: Shape = Shape {
    flexible: 5,
    fields: &[
        since(2, Fixed(4)),
        all(List(&[
            all(Text),
            since(7, Fixed(16)),    // topic id
            all(Fixed(2)),          // error
            since(1, Text),         // message
            since(5, Fixed(4 + 2)), // partitions, replication factor
            since(
                5,
                List(&[
                    all(Text),             // name
                    all(Text),             // value
                    all(Fixed(1 + 1 + 1)), // read only, source, sensitive
                ]),
            ),
            since(5, Tag(0, 2)), // error of the configuration
        ])),
    ],
};

pub(crate) static CREATE_PARTITIONS: Shape = Shape {
    flexible: 2,
    fields: &[
        all(Fixed(4)),
        all(List(&[all(Text), all(Fixed(2)), all(Text)])),
    ],
};

pub(crate) static DESCRIBE_CONFIGS: Shape = Shape {
    flexible: 4,
    fields: &[
        all(Fixed(4)),
        all(List(&[
            all(Fixed(2)), // error
            all(Text),     // message
            all(Fixed(1)), // resource type
            all(Text),     // resource name
            all(List(&[
                all(Text),                                              // name
                all(Text),                                              // value
                all(Fixed(1)),                                          // read only
                all(Fixed(1)), // source (or is-default in version 0)
                all(Fixed(1)), // sensitive
                since(1, List(&[all(Text), all(Text), all(Fixed(1))])), // synonyms
                since(3, Fixed(1)), // type
                since(3, Text), // documentation
            ])),
        ])),
    ],
};

pub(crate) static INCREMENTAL_ALTER_CONFIGS: Shape = Shape {
    flexible: 1,
    fields: &[
        all(Fixed(4)),
        all(List(&[all(Fixed(2)), all(Text), all(Fixed(1)), all(Text)])),
    ],
};

pub(crate) static INIT_PRODUCER_ID: Shape = Shape {
    flexible: 2,
    fields: &[all(Fixed(4 + 2 + 8 + 2)), since(6, Fixed(8 + 2))],
};

pub(crate) static ADD_PARTITIONS_TO_TXN: Shape = Shape {
    flexible: 3,
    fields: &[
        all(Fixed(4)),
        between(List(&[all(Text), all(List(&[all(Fixed(4 + 2))]))]), 0, 3),
    ],
};

pub(crate) static END_TXN: Shape = Shape {
    flexible: 3,
    fields: &[all(Fixed(4 + 2)), since(5, Fixed(8 + 2))],
};

pub(crate) static DESCRIBE_TRANSACTIONS: Shape = Shape {
    flexible: 0,
    fields: &[
        all(Fixed(4)),
        all(List(&[
            all(Fixed(2)),             // error
            all(Text),                 // transactional id
            all(Text),                 // state
            all(Fixed(4 + 8 + 8 + 2)), // timeout, start, producer id, epoch
            all(List(&[all(Text), all(Ints(4))])),
        ])),
    ],
};

pub(crate) static DESCRIBE_PRODUCERS: Shape = Shape {
    flexible: 0,
    fields: &[
        all(Fixed(4)),
        all(List(&[
            all(Text),
            all(List(&[
                all(Fixed(4 + 2)), // partition, error
                all(Text),         // message
                all(List(&[all(Fixed(8 + 4 + 4 + 8 + 4 + 8))])),
            ])),
        ])),
    ],
};

pub(crate) static OFFSET_COMMIT: Shape = Shape {
    flexible: 8,
    fields: &[
        since(3, Fixed(4)),
        all(List(&[
            between(Text, 0, 9),
            since(10, Fixed(16)),
            all(List(&[all(Fixed(4 + 2))])),
        ])),
    ],
};

pub(crate) static OFFSET_FETCH: Shape = Shape {
    flexible: 6,
    fields: &[
        since(3, Fixed(4)),
        between(
            List(&[
                all(Text),
                all(List(&[
                    all(Fixed(4 + 8)),  // partition, offset
                    since(5, Fixed(4)), // leader epoch
                    all(Text),          // metadata
                    all(Fixed(2)),      // error
                ])),
            ]),
            0,
            7,
        ),
        between(Fixed(2), 2, 7),
        since(
            8,
            List(&[
                all(Text), // group
                all(List(&[
                    between(Text, 8, 9),
                    since(10, Fixed(16)),
                    all(List(&[
                        all(Fixed(4 + 8 + 4)), // partition, offset, leader epoch
                        all(Text),             // metadata
                        all(Fixed(2)),         // error
                    ])),
                ])),
                all(Fixed(2)), // error
            ]),
        ),
    ],
};

pub(crate) static LIST_GROUPS: Shape = Shape {
    flexible: 3,
    fields: &[
        since(1, Fixed(4)),
        all(Fixed(2)),
        all(List(&[
            all(Text),
            all(Text),
            since(4, Text),
            since(5, Text),
        ])),
    ],
};

pub(crate) static DESCRIBE_GROUPS: Shape = Shape {
    flexible: 5,
    fields: &[
        since(1, Fixed(4)),
        all(List(&[
            all(Fixed(2)),  // error
            since(6, Text), // message
            all(Text),      // group
            all(Text),      // state
            all(Text),      // protocol type
            all(Text),      // protocol
            all(List(&[
                all(Text),      // member
                since(4, Text), // instance
                all(Text),      // client id
                all(Text),      // client host
                all(Blob),      // metadata
                all(Blob),      // assignment
            ])),
            since(3, Fixed(4)), // authorized operations
        ])),
    ],
};

pub(crate) static SASL_HANDSHAKE: Shape = Shape {
    flexible: i16::MAX,
    fields: &[all(Fixed(2)), all(Texts)],
};

pub(crate) static SASL_AUTHENTICATE: Shape = Shape {
    flexible: 2,
    fields: &[all(Fixed(2)), all(Text), all(Blob), since(1, Fixed(8))],
};

pub(crate) static DESCRIBE_ACLS: Shape = Shape {
    flexible: 2,
    fields: &[
        all(Fixed(4 + 2)), // throttle time, error
        all(Text),         // message
        all(List(&[
            all(Fixed(1)),      // resource type
            all(Text),          // resource name
            since(1, Fixed(1)), // pattern type
            all(List(&[
                all(Text),         // principal
                all(Text),         // host
                all(Fixed(1 + 1)), // operation, permission type
            ])),
        ])),
    ],
};

pub(crate) static CREATE_ACLS: Shape = Shape {
    flexible: 2,
    fields: &[all(Fixed(4)), all(List(&[all(Fixed(2)), all(Text)]))],
};

pub(crate) static DESCRIBE_LOG_DIRS: Shape = Shape {
    flexible: 2,
    fields: &[
        all(Fixed(4)),
        since(3, Fixed(2)), // error
        all(List(&[
            all(Fixed(2)), // error
            all(Text),     // folder
            all(List(&[
                all(Text),
                all(List(&[all(Fixed(4 + 8 + 8 + 1))])), // partition, size, lag, future
            ])),
            since(4, Fixed(8 + 8)), // size and room of the volume
        ])),
    ],
};

pub(crate) static DESCRIBE_CLIENT_QUOTAS: Shape = Shape {
    flexible: 1,
    fields: &[
        all(Fixed(4 + 2)), // throttle time, error
        all(Text),         // message
        all(List(&[
            all(List(&[all(Text), all(Text)])),     // kind, name
            all(List(&[all(Text), all(Fixed(8))])), // key, value
        ])),
    ],
};

pub(crate) static DESCRIBE_USER_SCRAM_CREDENTIALS: Shape = Shape {
    flexible: 0,
    fields: &[
        all(Fixed(4 + 2)), // throttle time, error
        all(Text),         // message
        all(List(&[
            all(Text),                       // user
            all(Fixed(2)),                   // error
            all(Text),                       // message
            all(List(&[all(Fixed(1 + 4))])), // mechanism, iterations
        ])),
    ],
};

pub(crate) static DESCRIBE_SHARE_GROUP_OFFSETS: Shape = Shape {
    flexible: 0,
    fields: &[
        all(Fixed(4)), // throttle time
        all(List(&[
            all(Text), // group
            all(List(&[
                all(Text),      // topic
                all(Fixed(16)), // its id
                all(List(&[
                    all(Fixed(4 + 8 + 4 + 2)), // partition, start offset, leader epoch, error
                    all(Text),                 // message
                ])),
            ])),
            all(Fixed(2)), // error
            all(Text),     // message
        ])),
    ],
};

pub(crate) static ALTER_SHARE_GROUP_OFFSETS: Shape = Shape {
    flexible: 0,
    fields: &[
        all(Fixed(4 + 2)), // throttle time, error
        all(Text),         // message
        all(List(&[
            all(Text),      // topic
            all(Fixed(16)), // its id
            all(List(&[
                all(Fixed(4 + 2)), // partition, error
                all(Text),         // message
            ])),
        ])),
    ],
};
