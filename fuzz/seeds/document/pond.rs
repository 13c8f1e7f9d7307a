use a;

fn b() {

}
