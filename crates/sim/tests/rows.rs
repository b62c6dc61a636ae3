//! The lab's rows, as they are simulated.

use sim::rows::rows;
use std::collections::BTreeSet;

#[test]
fn each_row_has_a_name_of_its_own_and_one_client_takes_what_the_link_takes() {
    let rows = rows(1);
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len());
    let (figure, copies) = rows[0].run();
    assert!(figure.is_some_and(|figure| (1000..1020).contains(&figure)), "{figure:?} thousandths");
    assert_eq!(copies, 1000);
}
