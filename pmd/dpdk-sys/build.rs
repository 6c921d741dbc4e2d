//! With the feature `link`: finds libdpdk, compiles the shim, and has bindgen read the headers. Without it: nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "link")]
    link::link();
}

#[cfg(feature = "link")]
mod link {
    use std::path::{Path, PathBuf};

    /// What the driver calls; types follow from them.
    const FUNCTIONS: &[&str] = &[
        "rte_(eal_init|eal_alarm_set|eal_iova_mode|strerror|openlog_stream|thread_register|thread_unregister|lcore_id_.*)",
        "rte_dev_(probe|remove|dma_map|dma_unmap|event_callback_(un)?register|event_monitor_start)",
        "rte_eth_dev_(configure|start|stop|close|info_get|get_port_by_name|is_valid_port|is_removed|callback_(un)?register)",
        "rte_eth_dev_(set_mtu|get_mtu|adjust_nb_rx_tx_desc|rss_hash_conf_get|rss_reta_(query|update)|rx_intr_.*)",
        "rte_eth_((rx|tx)_queue_setup|macaddr_get|stats_get|xstats_get|xstats_get_names)",
        "rte_eth_(promiscuous_enable|allmulticast_enable|find_next|dev_socket_id|dev_set_link_up|dev_set_link_down)",
        "rte_extmem_(register|unregister)",
        "rte_mem_virt2iova",
        "rte_mempool_(register_ops|create_empty|set_ops_byname|populate_iova|free)",
        "rte_mbuf_dynfield_register_offset",
        "rte_pktmbuf_free_bulk",
        "rxl_.*",
    ];
    const TYPES: &[&str] = &["rte_pktmbuf_pool_private", "rte_iova_mode"];
    const CONSTANTS: &[&str] =
        &["RTE_ETH_.*", "RTE_MBUF_F_.*", "RTE_PKTMBUF_HEADROOM", "RTE_EAL_PMD_PATH", "RXL_.*"];

    pub fn link() {
        for file in ["shim/shim.h", "shim/shim.c"] {
            println!("cargo::rerun-if-changed={file}");
        }
        let dpdk = pkg_config::Config::new()
            .atleast_version("22.11")
            .cargo_metadata(false)
            .probe("libdpdk")
            .unwrap_or_else(|error| {
                panic!("{error}\nthe feature `dpdk` needs DPDK 22.11 or later: apt install libdpdk-dev")
            });
        compile_shim(&dpdk.include_paths);
        // Behind the shim, whose symbols the linker then looks for here.
        for path in &dpdk.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        for library in &dpdk.libs {
            println!("cargo::rustc-link-lib={library}");
        }
        bind(&dpdk.include_paths);
    }

    fn compile_shim(include: &[PathBuf]) {
        let mut cc = cc::Build::new();
        cc.file("shim/shim.c").includes(include).flag("-include").flag("rte_config.h").opt_level(3);
        // DPDK's headers have their own habits.
        cc.warnings(false);
        if let Some(machine) = machine() {
            cc.flag(machine);
        }
        cc.compile("rxl_shim");
    }

    /// DPDK's own flags: the oldest machine that it supports. Code for the building one would end on others, and on those that an
    /// emulator or valgrind makes up, and is no faster: what moves packets is in the drivers, which choose at run time.
    fn machine() -> Option<&'static str> {
        let x86_64 = std::env::var("TARGET").is_ok_and(|target| target.starts_with("x86_64"));
        x86_64.then_some("-march=corei7")
    }

    fn bind(include: &[PathBuf]) {
        let mut builder = bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(include.iter().map(|path| format!("-I{}", path.display())))
            .clang_args(["-include", "rte_config.h"])
            .opaque_type("rte_mbuf")
            .derive_default(true)
            .generate_comments(false)
            .layout_tests(true);
        if let Some(machine) = machine() {
            builder = builder.clang_arg(machine);
        }
        for name in FUNCTIONS {
            builder = builder.allowlist_function(name);
        }
        for name in TYPES {
            builder = builder.allowlist_type(name);
        }
        for name in CONSTANTS {
            builder = builder.allowlist_var(name);
        }
        let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
        let bindings = builder.generate().unwrap_or_else(|error| {
            panic!("{error}\nbindgen reads DPDK's headers with libclang: apt install libclang-dev")
        });
        bindings.write_to_file(Path::new(&out).join("bindings.rs")).expect("OUT_DIR can be written");
    }
}
