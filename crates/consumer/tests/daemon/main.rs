//! Whole consumers in this process, against memory and against real servers, fed by hand-made devices.

mod device;
mod faults;
mod life;
mod servers;
mod site;
